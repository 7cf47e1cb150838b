"""The engine that carries tasks across crashes."""
