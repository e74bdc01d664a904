"""Which requests are the same, and whether a request can share a run."""
