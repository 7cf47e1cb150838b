"""The only way out of a container: git, and a proxy for all else."""
