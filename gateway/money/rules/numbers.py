"""Read JSON numbers exactly. Floats would round amounts of money."""

import re
from decimal import Decimal

_LONGEST = 420
_MOST_PLACES = 400
"""Maximum number of decimal places. The smallest doubles need about 340."""

_NUMBER = re.compile(rb"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")


def read(text: bytes) -> Decimal | None:
    """Return a JSON number exactly as written; `None` if it is not a number, or longer or finer than any double."""
    text = text.strip()
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text.decode())
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and exponent >= -_MOST_PLACES else None


def is_whole(number: Decimal) -> bool:
    """Return whether a number is an integer, however it is written: `4`, `4.0`, `4e0`."""
    return number == number.to_integral_value()
