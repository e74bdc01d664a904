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
        codecs = [
            (index, *codec)
            for index, field in enumerate(msgspec.structs.fields(record))
            if (codec := _codec(field.type)) is not None
        ]
        self._writers = [(index, write) for index, write, _ in codecs if write is not None]
        self._readers = [(index, read) for index, _, read in codecs]

    def row(self, record: RecordT) -> Row:
        """Convert a record to the values of its columns."""
        values = list(msgspec.structs.astuple(record))
        for index, write in self._writers:
            value = values[index]
            if value is not None:
                values[index] = write(value)
        return tuple(values)

    def record(self, row: Row) -> RecordT:
        """Convert the values of the columns to a record."""
        values = list(row)
        for index, read in self._readers:
            value = values[index]
            if value is not None:
                values[index] = read(value)
        return self._record(**dict(zip(self.columns, values, strict=True)))


def _codec(kind: Any) -> tuple[Callable[[Any], Any] | None, Callable[[Any], Any]] | None:
    """Return the functions that write and read values of a type; `None` where SQLite takes or gives it as it is."""
    if isinstance(kind, types.UnionType):
        (kind,) = (each for each in kind.__args__ if each is not type(None))
    if kind is bool:
        return int, bool
    if kind is float:
        # SQLite stores an integral float as an integer, and RETURNING returns it as one.
        return None, float
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        # `value` is a property in Python code.
        return operator.attrgetter("_value_"), {each.value: each for each in kind}.__getitem__
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
    """Convert the columns of a prediction and its run, and what was left out of the run."""
    run = RUNS.record(row[_PREDICTION_WIDTH:-1])
    return PredictionView(PREDICTIONS.record(row[:_PREDICTION_WIDTH]), run, row[-1])
