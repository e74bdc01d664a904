"""Server-sent events to clients. One loop writes a run's events to all of its readers."""
