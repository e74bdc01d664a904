"""Pure rules of streams: SSE parsing, event-log windows, resume, and replay."""
