"""Resize LRU caches while they are in use."""

from contextlib import suppress
from typing import Any, TypeVar

from cachetools import LRUCache

C = TypeVar("C", bound=LRUCache[Any, Any])


def resize_lru(cache: C, size: int) -> C:
    """Return a cache of another size with the entries that fit; `cache` itself if the size is unchanged.

    Of those that do not fit, the ones that were added first are dropped, even if they were used lately.
    """
    if size == cache.maxsize:
        return cache
    other = type(cache)(size, getsizeof=cache.getsizeof)
    for key, value in cache.items():
        # An entry larger than the new cache raises `ValueError` and is dropped.
        with suppress(ValueError):
            other[key] = value
    return other
