"""The client to the model endpoint."""
