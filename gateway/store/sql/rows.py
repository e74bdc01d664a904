"""Convert records to rows and back. A table's columns have the names of the record's fields.

Enums are stored as their values, tuples and structs as JSON, booleans as 0 and 1.
"""

import enum
import operator
import types
import typing
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from gateway.domain.ledger import Entry, Reservation
from gateway.domain.records import File, Key, Prediction, PredictionView, Run
from gateway.webhooks.rules.deliveries import Delivery

RecordT = TypeVar("RecordT", bound=msgspec.Struct)
Row = tuple[Any, ...]


class Table(Generic[RecordT]):
    """The conversion between one kind of record and the columns of its table."""

    def __init__(self, record: type[RecordT]) -> None:
        self.columns = record.__struct_fields__
        self._record = record
        self._fields = operator.attrgetter(*self.columns)
        self._codecs = [
            (index, *codec)
            for index, field in enumerate(msgspec.structs.fields(record))
            if (codec := _codec(field.type)) is not None
        ]

    def row(self, record: RecordT) -> Row:
        """Convert a record to the values of its columns."""
        values = list(self._fields(record))
        for index, write, _ in self._codecs:
            if values[index] is not None:
                values[index] = write(values[index])
        return tuple(values)

    def record(self, row: Row) -> RecordT:
        """Convert the values of the columns to a record."""
        values = list(row)
        for index, _, read in self._codecs:
            if values[index] is not None:
                values[index] = read(values[index])
        return self._record(**dict(zip(self.columns, values, strict=True)))


def _codec(kind: Any) -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """Return the functions that write and read values of a type; `None` if SQLite stores the type as it is."""
    if isinstance(kind, types.UnionType):
        (kind,) = (each for each in kind.__args__ if each is not type(None))
    if kind is bool:
        return int, bool
    if kind is float:
        # SQLite stores an integral float as an integer, and RETURNING returns it as one.
        return float, float
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return operator.attrgetter("value"), {each.value: each for each in kind}.__getitem__
    if typing.get_origin(kind) is tuple or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return _to_json, msgspec.json.Decoder(kind).decode
    return None


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


RUNS = Table(Run)
PREDICTIONS = Table(Prediction)
KEYS = Table(Key)
FILES = Table(File)
DELIVERIES = Table(Delivery)
RESERVATIONS = Table(Reservation)
ENTRIES = Table(Entry)

_PREDICTION_WIDTH = len(PREDICTIONS.columns)


def view(row: Row) -> PredictionView:
    """Convert the columns of a prediction and its run."""
    return PredictionView(PREDICTIONS.record(row[:_PREDICTION_WIDTH]), RUNS.record(row[_PREDICTION_WIDTH:]))
