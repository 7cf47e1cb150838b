"""The orchestrator: takes tasks, runs the model loop, keeps repositories' containers."""
