"""What package managers on this machine are configured with, one module a family of clients."""
