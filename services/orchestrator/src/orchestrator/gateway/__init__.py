"""The only way out of a container: git for now."""
