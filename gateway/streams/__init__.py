"""One upstream stream, many readers: the hub, the event log, resume, and replay."""
