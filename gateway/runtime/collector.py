"""Settings of Python's collector of reference cycles."""

import gc


def spare_long_lived_objects() -> None:
    """Leave the objects of the start out of every later collection. Call once, when serving.

    Otherwise each full collection looks at several hundred thousand objects that stay anyway, and everything waits.
    What was alive at the start and becomes a cycle later is never freed; that is bounded by what there was. How often
    new objects are looked at stays as it is: collecting less often saves up to 10 % of the CPU of a miss, but keeps
    large bodies that are a part of cycles for longer than the bound of memory allows.
    """
    gc.collect()
    gc.freeze()
