-- The model that works on a task, by its name at the endpoint; empty: the deployment's own.
ALTER TABLE tasks ADD COLUMN model text NOT NULL DEFAULT '';
