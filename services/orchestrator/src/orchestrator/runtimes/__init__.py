"""Where containers run: one adapter a module, all behind `ports.Runtime`."""
