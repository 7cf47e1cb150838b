-- The statements of the stores. Each may run twice without changing more than once, because a
-- statement whose answer was lost with its connection is sent again.

-- name: use_workspace
-- Make sure of a workspace and mark it used; its key for workers is made once and then stays.
INSERT INTO workspaces (id, key, repositories, worker_key)
VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET last_used_at = clock_timestamp()
RETURNING worker_key;

-- name: list_workspaces
-- All workspaces, the latest used first.
SELECT w.id, w.key, w.repositories, w.created_at, w.last_used_at, count(t.id) AS task_count
FROM workspaces AS w
LEFT JOIN tasks AS t ON t.workspace_id = w.id
GROUP BY w.id
ORDER BY w.last_used_at DESC, w.id;

-- name: add_task
-- Record a task as running; a task that is recorded already stays as it is.
INSERT INTO tasks (
    id, workspace_id, runtime, query, start, max_steps, max_tokens, max_seconds, files,
    install_dependencies, dry_run
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO NOTHING;

-- name: finish_task
-- running -> succeeded, failed or cancelled, with everything known at the end.
UPDATE tasks
SET status = $2, stop_reason = $3, answer = $4, diff = $5, changed_files = $6, left_out = $7,
    steps = $8, notices = $9, prompt_tokens = $10, completion_tokens = $11, model_seconds = $12,
    tool_seconds = $13, wall_seconds = $14, error_code = $15, error_detail = $16,
    finished_at = clock_timestamp()
WHERE id = $1 AND status = 'running';

-- name: get_task
-- A task with its workspace.
SELECT t.*, w.key AS workspace_key, w.repositories
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
WHERE t.id = $1;

-- name: list_tasks
-- A page of tasks, the newest first, after the task that ended the page before.
SELECT t.*, w.key AS workspace_key, w.repositories
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
WHERE ($1::text IS NULL OR t.status = $1)
    AND ($2::text IS NULL OR t.workspace_id = $2)
    AND (
        $3::text IS NULL
        OR (t.created_at, t.id) < (SELECT created_at, id FROM tasks WHERE id = $3)
    )
ORDER BY t.created_at DESC, t.id DESC
LIMIT $4;

-- name: unfinished_tasks
-- Tasks that have no ending, or whose record of events has none, the oldest first.
SELECT t.*, w.key AS workspace_key, w.repositories
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
WHERE t.status = 'running' OR NOT t.events_closed
ORDER BY t.created_at, t.id;

-- name: request_cancel
-- Ask whoever runs a task to end it, and tell all orchestrators.
UPDATE tasks
SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
WHERE id = $1 AND status = 'running'
RETURNING pg_notify('berth_cancels', id);

-- name: requested_cancels
-- Tasks whose end was asked for and has not come.
SELECT id FROM tasks WHERE status = 'running' AND cancel_requested_at IS NOT NULL;

-- name: append_event
-- Record an event under its task's next number and wake the task's readers. The task's row lock
-- is held to the end, so numbers have no gap and appear in order. No row if the task is unknown
-- or its record closed.
WITH slot AS (
    UPDATE tasks
    SET last_event = last_event + 1, events_closed = ($2 = 'finished')
    WHERE id = $1 AND NOT events_closed
    RETURNING id, last_event
), added AS (
    INSERT INTO events (task_id, number, kind, step, data, append_id)
    SELECT id, last_event, $2, $3, $4, $5 FROM slot
    RETURNING task_id, number, kind, step, data, at
)
SELECT task_id, number, kind, step, data, at,
    pg_notify('berth_events', task_id || ':' || number)
FROM added;

-- name: find_append
-- The event that an earlier try to append it has recorded.
SELECT task_id, number, kind, step, data, at
FROM events
WHERE task_id = $1 AND append_id = $2;

-- name: read_events
-- The next events of a task after a number, at most so many.
SELECT task_id, number, kind, step, data, at
FROM events
WHERE task_id = $1 AND number > $2
ORDER BY number
LIMIT $3;

-- name: events_of_kind
-- All events of a task of one kind so far.
SELECT task_id, number, kind, step, data, at
FROM events
WHERE task_id = $1 AND kind = $2
ORDER BY number;

-- name: read_progress
-- How far a task's record has come and whether it is complete.
SELECT last_event, events_closed
FROM tasks
WHERE id = $1;

-- name: begin_publication
-- (none), withdrawn -> pending. No row if the task has one that counts.
INSERT INTO publications (
    task_id, mode, branch, title, body, draft, author, state, repositories
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (task_id) DO UPDATE
SET mode = excluded.mode, branch = excluded.branch, title = excluded.title, body = excluded.body,
    draft = excluded.draft, author = excluded.author, state = excluded.state,
    repositories = excluded.repositories, updated_at = clock_timestamp()
WHERE publications.state = 'withdrawn'
RETURNING *;

-- name: get_publication
-- The publication of a task.
SELECT * FROM publications WHERE task_id = $1;

-- name: keep_publication
-- How far a publication has come; a published one stays as it is.
UPDATE publications
SET state = $2, repositories = $3, updated_at = clock_timestamp()
WHERE task_id = $1 AND state <> 'published';
