"""Decisions of nodes, as pure functions."""
