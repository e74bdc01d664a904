"""Settings of Python's collector of reference cycles."""

import gc

_NEW_OBJECTS = 5000
_GENERATIONS = 10


def spare_long_lived_objects() -> None:
    """Leave the objects of the start out of every later collection, and collect less often. Call once, when serving.

    By default the collector looks at new objects after every 700, and at all objects, several hundred thousand, again
    and again: 8 % of the CPU of a miss. Almost everything is freed without it, by reference counts.
    What was alive at the start and becomes a cycle later is never freed; that is bounded by what there was.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _GENERATIONS, _GENERATIONS)
