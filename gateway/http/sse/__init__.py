"""Event streams to callers: one write loop for all readers of a run."""
