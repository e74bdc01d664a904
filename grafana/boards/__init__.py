"""The dashboards, one per file."""
