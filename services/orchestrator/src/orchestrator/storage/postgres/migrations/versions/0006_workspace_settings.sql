-- Settings of a workspace, beside the deployment's.
ALTER TABLE workspaces
    -- {container: {limit: number, …}, egress: {limit: number, …, hosts: […]}}; what is missing or
    -- null is the deployment's.
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object');
