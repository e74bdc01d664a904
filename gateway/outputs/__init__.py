"""Stored copies of output files: download, copy, links, and eviction."""
