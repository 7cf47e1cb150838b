"""The client side of the worker in a container."""
