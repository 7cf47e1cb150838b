-- What users say to running tasks, and tasks that build on others.

ALTER TABLE tasks
    -- The task it builds on, if any.
    ADD COLUMN parent_id text REFERENCES tasks (id),
    -- continues: goes on in the parent's tree. forks: has a tree of its own, made from the
    -- parent's as it was after `parent_step`.
    ADD COLUMN relation text CHECK (relation IN ('continues', 'forks')),
    ADD COLUMN parent_step integer CHECK (parent_step >= 0),
    -- The number of its newest message. A message is counted here, under the row's lock, and the
    -- statement that ends a task with an answer asks for the count that the model has heard: so
    -- a message is either heard or refused, and none falls between.
    ADD COLUMN last_message integer NOT NULL DEFAULT 0 CHECK (last_message >= 0),
    -- Of the request, if that came with an `Idempotency-Key`; the id is then made from the key.
    ADD COLUMN request_digest text NOT NULL DEFAULT '',
    ADD CONSTRAINT tasks_lineage_is_whole CHECK (
        (parent_id IS NULL) = (relation IS NULL)
        AND (parent_step IS NOT NULL) = (relation IS NOT DISTINCT FROM 'forks')
    );

-- A tree has one task at a time to work in it.
CREATE UNIQUE INDEX tasks_continued_once ON tasks (parent_id) WHERE relation = 'continues';

-- What a user said to a task while it ran. Rows are only ever added.
CREATE TABLE messages (
    task_id text NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    number integer NOT NULL CHECK (number > 0),
    text text NOT NULL,
    -- The caller's, or made by us, so that a message whose answer was lost can be sent again.
    key text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (task_id, number),
    CONSTRAINT messages_key_is_unique UNIQUE (task_id, key)
);
