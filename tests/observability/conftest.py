"""Fixtures of the observability tests: a simulator as upstream."""

from tests.support.fixtures import upstream

__all__ = ["upstream"]
