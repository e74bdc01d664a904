"""Caches that change their size while they are in use."""

from cachetools import LRUCache

from gateway.runtime.lru import resize_lru


def test_smaller_cache_keeps_what_fits():
    """Entries that fit stay, and the limit holds by the same measure."""
    cache: LRUCache[str, str] = LRUCache(100, getsizeof=len)
    for name in "abcd":
        cache[name] = name * 20
    cache["large"] = "x" * 15
    small = resize_lru(cache, 12)
    assert (len(small), small.currsize) == (0, 0)
    half = resize_lru(cache, 50)
    assert half.currsize <= 50
    assert len(half) >= 2
    assert dict(resize_lru(cache, 200)) == dict(cache)
    assert resize_lru(cache, 100) is cache
