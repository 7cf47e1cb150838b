-- Several orchestrators on one database: who is alive, and who may use which workspace.

-- An orchestrator that takes tasks. A row is made when one starts and deleted when one ends or is
-- called dead; only then may others take its tasks.
CREATE TABLE executors (
    -- Kept in its data directory: the same after a restart.
    id text PRIMARY KEY,
    -- Another at every start. A heartbeat of an earlier process with this id is refused by it.
    instance text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- By this server's clock, the only one that all executors share.
    heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The right to use a workspace. A lease is live if it is held and its executor's heartbeat is
-- young enough. A row is never deleted, since its generation must never go back.
CREATE TABLE leases (
    workspace_id text PRIMARY KEY,
    -- Who has it, or had it last; that executor may be gone.
    executor_id text NOT NULL,
    -- The fencing token: one higher with every acquisition.
    generation bigint NOT NULL CHECK (generation > 0),
    held boolean NOT NULL,
    acquired_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
WITH (fillfactor = 80);

-- What every heartbeat reads.
CREATE INDEX leases_held ON leases (executor_id) WHERE held;
