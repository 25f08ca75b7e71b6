"""Tasks by area, each of them idempotent."""
