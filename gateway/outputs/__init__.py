"""Stored copies of output files: copy, serve, link and evict."""
