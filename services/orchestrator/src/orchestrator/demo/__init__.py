"""`scripts/demo`: one real task from start to end, shown step by step."""
