"""Alternatives, on the same work: `python -m bench.peers`."""
