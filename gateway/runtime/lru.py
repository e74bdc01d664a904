"""Caches that are given another size while they are in use."""

from contextlib import suppress
from typing import TypeVar

from cachetools import LRUCache

K = TypeVar("K")
V = TypeVar("V")


def resize_lru(cache: LRUCache[K, V], size: int) -> LRUCache[K, V]:
    """Return a cache of another size with as much in it as it can hold; the same one if the size is the same."""
    if size == cache.maxsize:
        return cache
    other: LRUCache[K, V] = LRUCache(size, getsizeof=cache.getsizeof)
    for key, value in cache.items():
        # What is larger than all of it is left out.
        with suppress(ValueError):
            other[key] = value
    return other
