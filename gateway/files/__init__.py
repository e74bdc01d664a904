"""Uploaded files: a team's own, deduplicated by content."""
