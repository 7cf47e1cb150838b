-- Workspaces, tasks and their events.

-- A workspace: one repository, or an ordered set of them, that has its own container.
CREATE TABLE workspaces (
    -- A hash of the key; the container's name is made from it.
    id text PRIMARY KEY,
    -- The canonical addresses in their order, or `scratch:<task>` for a workspace without any.
    -- As unique as its hash. An index of its own would let two first uses at once collide, since
    -- an upsert looks out for conflicts on one index only.
    key text NOT NULL,
    -- [{scheme, host, port, path, name}, …]; `name` is the directory in every task's tree.
    repositories jsonb NOT NULL CHECK (jsonb_typeof(repositories) = 'array'),
    -- The secret our workers of this workspace are claimed with. Made with the row, never changed:
    -- a running container that was claimed with it must stay reachable after our restart.
    worker_key text NOT NULL CHECK (length(worker_key) >= 43),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a task was last added or a worker last claimed.
    last_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX workspaces_by_use ON workspaces (last_used_at DESC, id);

-- A task: one query run in a workspace.
--
-- States and their transitions:
--   running    from its acceptance. Leaves this state once, to one of:
--   succeeded  the model gave an answer.
--   failed     a limit, an error or a crash ended it; what it did until then is kept.
--   cancelled  the caller ended it.
-- The last three are final. The first ending counts: the statement that ends a task asks for
-- `running` and so changes nothing the second time.
CREATE TABLE tasks (
    id text PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES workspaces (id),
    runtime text NOT NULL,
    query text NOT NULL,
    -- [{name, commit, ref}, …], one for each repository, in the workspace's order.
    start jsonb NOT NULL CHECK (jsonb_typeof(start) = 'array'),
    -- The budget: model and tool calls, tokens of all model calls, seconds of the loop.
    max_steps integer NOT NULL,
    max_tokens bigint NOT NULL,
    max_seconds double precision NOT NULL,
    status text NOT NULL DEFAULT 'running'
        CONSTRAINT tasks_status_is_known
        CHECK (status IN ('running', 'succeeded', 'failed', 'cancelled')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),

    -- The ending: all of it is there, or none.
    finished_at timestamptz,
    stop_reason text,
    answer text,
    diff text,
    changed_files text[],
    -- Changed things that a patch cannot carry.
    left_out text[],
    steps integer,
    notices text[],
    -- The receipt.
    prompt_tokens bigint,
    completion_tokens bigint,
    model_seconds double precision,
    tool_seconds double precision,
    wall_seconds double precision,
    -- Why it failed: a stable code and a sentence.
    error_code text,
    error_detail text,

    -- The number of its newest event. Counting here, under the row's lock, makes the numbers of
    -- one task gap-free and become visible in their order.
    last_event integer NOT NULL DEFAULT 0 CHECK (last_event >= 0),
    -- True once its `finished` event is recorded: no event may follow that one.
    events_closed boolean NOT NULL DEFAULT false,

    CONSTRAINT tasks_ending_is_whole CHECK (
        num_nonnulls(
            finished_at, stop_reason, answer, diff, changed_files, left_out, steps, notices,
            prompt_tokens, completion_tokens, model_seconds, tool_seconds, wall_seconds
        ) = CASE status WHEN 'running' THEN 0 ELSE 13 END
    ),
    CONSTRAINT tasks_error_is_whole CHECK (
        num_nonnulls(error_code, error_detail) IN (0, 2)
        AND (error_code IS NULL OR status <> 'running')
    )
)
-- Each event rewrites the row's small part; the room left lets that happen within the page.
WITH (fillfactor = 80);

CREATE INDEX tasks_by_workspace ON tasks (workspace_id);

-- What a restart looks for: tasks that still run, or whose record was never closed.
CREATE INDEX tasks_open ON tasks (id) WHERE status = 'running' OR NOT events_closed;

-- What happened in a task, as its caller sees it. Rows are only ever added.
CREATE TABLE events (
    task_id text NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number integer NOT NULL CHECK (number > 0),
    -- accepted, container, prepared, model, tool, notice, finished; more may come.
    kind text NOT NULL CHECK (kind <> ''),
    -- The step it belongs to; 0 outside the loop.
    step integer NOT NULL CHECK (step >= 0),
    data jsonb NOT NULL CHECK (jsonb_typeof(data) = 'object'),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Made by the writer, so that an append whose answer was lost can be sent again.
    append_id uuid NOT NULL,
    PRIMARY KEY (task_id, number),
    CONSTRAINT events_append_is_unique UNIQUE (task_id, append_id)
);

-- A task ends once.
CREATE UNIQUE INDEX events_finish_once ON events (task_id) WHERE kind = 'finished';
