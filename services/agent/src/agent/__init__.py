"""The worker: the process inside a repository's container that executes tools."""
