"""Where metadata (Postgres) and objects (files) are kept."""
