"""The MCP servers that Berth ships, one module a server."""
