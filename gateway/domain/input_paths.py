"""Where a text stands in an input, for errors that name it."""

from contextlib import suppress

import msgspec

from gateway.domain import links


def path_in(given: bytes, text: str) -> str:
    """Return the path of a text in an input, such as `input.images[2]`; `input` if the input cannot be decoded.

    Reads the whole input: for one error, not for each link.
    """
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return links.path_of(msgspec.json.decode(given), text)
    return "input"
