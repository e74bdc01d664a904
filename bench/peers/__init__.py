"""What people could use instead, on the same work: `python -m bench.peers`."""
