-- The statements of the stores. Each may run twice without changing more than once, because a
-- statement whose answer was lost with its connection is sent again.

-- name: use_workspace
-- Make sure of a workspace and mark it used; its key for workers is made once and then stays.
INSERT INTO workspaces (id, key, repositories, worker_key)
VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE SET last_used_at = clock_timestamp()
RETURNING worker_key;

-- name: list_workspaces
-- All workspaces, the latest used first. A task uses its workspace until its end.
SELECT w.id, w.key, w.repositories, w.created_at, count(t.id) AS task_count,
    greatest(w.last_used_at, max(t.finished_at)) AS last_used_at
FROM workspaces AS w
LEFT JOIN tasks AS t ON t.workspace_id = w.id
GROUP BY w.id
ORDER BY last_used_at DESC, w.id;

-- name: read_settings
-- What was set for a workspace.
SELECT settings FROM workspaces WHERE id = $1;

-- name: keep_settings
-- Replace what was set for a workspace; no row if there is none.
UPDATE workspaces SET settings = $2 WHERE id = $1 RETURNING id;

-- name: add_task
-- Record a task as running; a task that is recorded already stays as it is.
INSERT INTO tasks (
    id, workspace_id, runtime, query, start, max_steps, max_tokens, max_seconds, files,
    install_dependencies, parent_id, relation, parent_step, request_digest, dry_run, model
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
ON CONFLICT (id) DO NOTHING;

-- name: finish_task
-- running -> succeeded, failed or cancelled, with everything known at the end. With a generation,
-- only while the lease is of that generation; its row lock keeps a takeover waiting meanwhile. With
-- a number of the last message heard, only if there is none after it.
WITH fence AS (
    SELECT l.workspace_id
    FROM leases AS l
    JOIN tasks AS t ON t.workspace_id = l.workspace_id
    WHERE t.id = $1 AND l.generation = $17
    FOR SHARE OF l
)
UPDATE tasks
SET status = $2, stop_reason = $3, answer = $4, diff = $5, changed_files = $6, left_out = $7,
    steps = $8, notices = $9, prompt_tokens = $10, completion_tokens = $11, model_seconds = $12,
    tool_seconds = $13, wall_seconds = $14, error_code = $15, error_detail = $16,
    finished_at = clock_timestamp()
WHERE id = $1 AND status = 'running'
    AND ($17::bigint IS NULL OR EXISTS (SELECT FROM fence))
    AND ($18::integer IS NULL OR last_message <= $18);

-- name: get_task
-- A task with its workspace.
SELECT t.*, w.key AS workspace_key, w.repositories, c.id AS continued_by
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
LEFT JOIN tasks AS c ON c.parent_id = t.id AND c.relation = 'continues'
WHERE t.id = $1;

-- name: list_tasks
-- A page of tasks, the newest first, after the task that ended the page before.
SELECT t.*, w.key AS workspace_key, w.repositories, c.id AS continued_by
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
LEFT JOIN tasks AS c ON c.parent_id = t.id AND c.relation = 'continues'
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
SELECT t.*, w.key AS workspace_key, w.repositories, c.id AS continued_by
FROM tasks AS t
JOIN workspaces AS w ON w.id = t.workspace_id
LEFT JOIN tasks AS c ON c.parent_id = t.id AND c.relation = 'continues'
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

-- name: add_message
-- Record what a user says to a running task under its next number. A message that is recorded
-- already under this key is returned as it stands; no row if the task does not run.
WITH slot AS (
    UPDATE tasks
    SET last_message = last_message + 1
    WHERE id = $1 AND status = 'running'
        AND NOT EXISTS (SELECT FROM messages WHERE task_id = $1 AND key = $3)
    RETURNING id, last_message
), added AS (
    INSERT INTO messages (task_id, number, text, key)
    SELECT id, last_message, $2, $3 FROM slot
    RETURNING number, text
)
SELECT number, text FROM added
UNION ALL
SELECT number, text FROM messages WHERE task_id = $1 AND key = $3;

-- name: read_messages
-- What was said to a task after the message of a number.
SELECT number, text FROM messages WHERE task_id = $1 AND number > $2 ORDER BY number;

-- name: last_step
-- The last step of a task that is completed and recorded.
SELECT coalesce(max(step), 0) AS step
FROM events
WHERE task_id = $1 AND kind IN ('model', 'tool');

-- name: append_event
-- Record an event under its task's next number and wake the task's readers. The task's row lock
-- is held to the end, so numbers have no gap and appear in order. No row if the task is unknown
-- or its record closed, or the lease not of the given generation, if one is given; as long as it
-- is, the lock on its row keeps a takeover waiting.
WITH fence AS (
    SELECT l.workspace_id
    FROM leases AS l
    JOIN tasks AS t ON t.workspace_id = l.workspace_id
    WHERE t.id = $1 AND l.generation = $6
    FOR SHARE OF l
), slot AS (
    UPDATE tasks
    SET last_event = last_event + 1, events_closed = ($2 = 'finished')
    WHERE id = $1 AND NOT events_closed
        AND ($6::bigint IS NULL OR EXISTS (SELECT FROM fence))
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

-- name: read_progress
-- How far a task's record has come and whether it is complete.
SELECT last_event, events_closed
FROM tasks
WHERE id = $1;

-- name: notify_text
-- Pass on what models are saying. It changes no row, and losing it in a crash is no loss: so its
-- commit does not wait for the disk.
SELECT pg_notify('berth_text', payload)
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS unsafe
CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS batch (payload, place)
ORDER BY place;

-- name: task_lease
-- The generation of the lease on a task's workspace, NULL if there never was one.
SELECT l.generation
FROM tasks AS t
LEFT JOIN leases AS l ON l.workspace_id = t.workspace_id
WHERE t.id = $1;

-- name: register_executor
-- Become alive under an id, in place of any earlier process.
INSERT INTO executors (id, instance)
VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE
SET instance = $2, started_at = clock_timestamp(), heartbeat_at = clock_timestamp();

-- name: beat
-- Stay alive; a row for each lease that is held, or one without a lease. No row if this process is
-- not registered any more.
WITH beat AS (
    UPDATE executors SET heartbeat_at = clock_timestamp()
    WHERE id = $1 AND instance = $2
    RETURNING id
)
SELECT l.workspace_id, l.generation
FROM beat AS b
LEFT JOIN leases AS l ON l.executor_id = b.id AND l.held;

-- name: bury_executors
-- Forget the executors that were silent for so many seconds; their tasks may then be taken.
DELETE FROM executors
WHERE id <> $1 AND heartbeat_at <= clock_timestamp() - make_interval(secs => $2)
RETURNING id;

-- name: known_executors
-- All that have registered and were not buried since.
SELECT id FROM executors;

-- name: resign_executor
-- End in good order: nobody has to wait until we count as dead.
WITH gone AS (
    DELETE FROM executors WHERE id = $1 AND instance = $2 RETURNING id
)
UPDATE leases SET held = false WHERE held AND executor_id IN (SELECT id FROM gone);

-- name: acquire_lease
-- Take a lease that is free, ours already, or of an executor that is dead: buried, or, if we may
-- judge that, silent for so many seconds. Always under the next generation. No row if a live
-- executor has it, or if we ourselves are not registered.
INSERT INTO leases AS l (workspace_id, executor_id, generation, held)
SELECT $1, e.id, 1, true
FROM executors AS e
WHERE e.id = $2 AND e.instance = $3
FOR SHARE OF e
ON CONFLICT (workspace_id) DO UPDATE
SET executor_id = excluded.executor_id, generation = l.generation + 1, held = true,
    acquired_at = clock_timestamp()
WHERE NOT l.held
    OR l.executor_id = excluded.executor_id
    OR NOT EXISTS (
        SELECT FROM executors AS holder
        WHERE holder.id = l.executor_id
            AND (NOT $4 OR holder.heartbeat_at > clock_timestamp() - make_interval(secs => $5))
    )
RETURNING generation;

-- name: release_lease
-- Give a lease up, unless it was taken over or acquired anew.
UPDATE leases SET held = false
WHERE workspace_id = $1 AND executor_id = $2 AND generation = $3 AND held;

-- name: read_lease
-- Who has a lease.
SELECT executor_id, generation, held FROM leases WHERE workspace_id = $1;

-- name: held_leases
-- The leases of executors that were heard within so many seconds.
SELECT l.workspace_id, l.executor_id, l.generation
FROM leases AS l
JOIN executors AS e ON e.id = l.executor_id
WHERE l.held AND e.heartbeat_at > clock_timestamp() - make_interval(secs => $1)
ORDER BY l.workspace_id;

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
