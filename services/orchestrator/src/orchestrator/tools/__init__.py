"""What the model can do: MCP servers, and small wrappers around them."""
