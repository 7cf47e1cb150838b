-- What has left: at most one publication a task.
ALTER TABLE tasks
    -- A dry run's work is shown and never published.
    ADD COLUMN dry_run boolean NOT NULL DEFAULT false;

-- States and their transitions:
--   pending    recorded before anything is pushed; branches may or may not be there.
--   pushed     all branches are there; pull requests may or may not be.
--   published  all that was asked for is there. Final.
--   withdrawn  it failed and left nothing outside; the next call may ask for something else and
--              makes it pending again.
CREATE TABLE publications (
    task_id text PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    -- What was asked for, with its defaults: the same call again means this publication.
    mode text NOT NULL
        CONSTRAINT publications_mode_is_known CHECK (mode IN ('branch', 'pull_request')),
    branch text NOT NULL CHECK (branch <> ''),
    title text NOT NULL,
    body text NOT NULL,
    draft boolean NOT NULL,
    -- `Name <address>`; kept, because the commits' names depend on it.
    author text NOT NULL,
    state text NOT NULL
        CONSTRAINT publications_state_is_known
        CHECK (state IN ('pending', 'pushed', 'published', 'withdrawn')),
    -- [{name, commit, base: {branch, moved, conflicts} | null, pull_request_url | null}, …]
    repositories jsonb NOT NULL CHECK (jsonb_typeof(repositories) = 'array'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
