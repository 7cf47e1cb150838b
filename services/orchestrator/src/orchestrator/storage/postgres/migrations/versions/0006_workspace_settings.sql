-- Settings of a workspace, beside the deployment's.
ALTER TABLE workspaces
    -- {container: {limit: number, …}, egress: {limit: number, …, hosts: […]}, secrets: [{secret,
    -- url, header, format, methods}, …]}; what is missing or null is the deployment's. Of secrets
    -- it holds names only.
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object');
