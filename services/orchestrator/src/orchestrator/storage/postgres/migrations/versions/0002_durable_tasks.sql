-- Tasks that outlive their process: all that is needed to run one from its row alone.
--
-- A task is recorded as `running` from its acceptance, queued or not; the engine's own tables know
-- whether it waits, runs or is to be taken up again.
ALTER TABLE tasks
    -- Names of the caller's files, in order; their contents are objects under `tasks/<id>/files/`.
    ADD COLUMN files text[] NOT NULL DEFAULT '{}',
    ADD COLUMN install_dependencies boolean NOT NULL DEFAULT false,
    -- Set once, by a caller; whoever runs the task then ends it as `cancelled`.
    ADD COLUMN cancel_requested_at timestamptz;

-- Pages of tasks, the newest first.
CREATE INDEX tasks_by_age ON tasks (created_at DESC, id DESC);
