"""A proxy before a Docker engine that lets through what the orchestrator asks for, and no more."""
