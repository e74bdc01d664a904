"""Server-Sent Events out: one connection per reader, written by one loop per run."""
