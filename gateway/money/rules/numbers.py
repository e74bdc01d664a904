"""Numbers of JSON, read exactly: a float would lose what money is made of."""

import re
from decimal import Decimal

_LONGEST = 420
_MOST_PLACES = 400
"""The smallest double is written with 340."""

_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")


def read(text: bytes) -> Decimal | None:
    """Read a JSON number as it is written; `None` for anything else, and for one longer or finer than any double."""
    text = text.strip()
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text.decode())
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and exponent >= -_MOST_PLACES else None


def is_whole(number: Decimal) -> bool:
    """Whether it is a whole number, however it is written: `4`, `4.0`, `4e0`."""
    return number == number.to_integral_value()
