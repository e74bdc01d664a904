"""The bodies of creates, checked as upstream would check them (docs/replicate-api.md, Routes and Errors).

Unknown top-level fields are refused. The content of `input` is not checked; the model does that. The body that is sent
upstream is built from the parsed fields, so that it cannot differ from what was checked (for example by a repeated
key).
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Raw

from gateway.domain import surrogates, urls
from gateway.domain.addresses import is_allowed_host
from gateway.domain.targets import Target, parse_version
from gateway.errors import BadRequest, InvalidField, Unprocessable

WEBHOOK_EVENTS = ("start", "output", "logs", "completed")
_MAX_UNKNOWN_NAMED = 20

_decode = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode
_TYPES = {b'"': "string", b"{": "object", b"[": "array", b"t": "boolean", b"f": "boolean", b"n": "null"}

_COMMON = ("input", "webhook", "webhook_completed", "webhook_events_filter")
_FIELDS: dict[str, tuple[str, ...]] = {
    "version": ("version", *_COMMON, "stream"),
    "target": (*_COMMON, "stream"),
    "training": ("destination", *_COMMON),
}
BodyForm = Literal["version", "target", "training"]


class CreateBody(msgspec.Struct, frozen=True):
    """A create's body. `input` is the JSON object as the caller wrote it."""

    input: bytes
    target: Target | None = None
    version: str | None = None
    destination: str | None = None
    webhook: str | None = None
    webhook_events_filter: tuple[str, ...] | None = None
    stream: bool | None = None

    def for_upstream(self, webhook: str | None = None, events: Sequence[str] = ()) -> bytes:
        """Write the body as it goes upstream: the caller's fields, with the gateway's `webhook` for the caller's."""
        fields: dict[str, object] = {}
        if self.version is not None:
            fields["version"] = self.version
        if self.destination is not None:
            fields["destination"] = self.destination
        fields["input"] = Raw(self.input)
        if self.stream is not None:
            fields["stream"] = self.stream
        if webhook is not None:
            fields |= {"webhook": webhook, "webhook_events_filter": list(events)}
        return _encode(fields)


def parse_object(body: bytes) -> dict[str, Raw]:
    """Read a JSON object's top level. Raise `BadRequest` as upstream words it."""
    if not body.strip():
        raise BadRequest("Failed to parse request body as JSON: EOF")
    try:
        str(body, "utf-8")
        return _decode_leniently(body)
    except msgspec.ValidationError as exc:
        kind = _TYPES.get(body.lstrip()[:1], "number")
        raise BadRequest(f"Failed to parse request body as JSON: expected an object, got {kind}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"Failed to parse request body as JSON: {exc}") from exc
    except RecursionError as exc:
        raise BadRequest("Failed to parse request body as JSON: nested too deeply") from exc


def _decode_leniently(body: bytes) -> dict[str, Raw]:
    """Decode an object, and give lone surrogates the meaning that upstream's decoder gives them."""
    try:
        return _decode(body)
    except msgspec.DecodeError:
        whole = surrogates.without_halves(body)
        if whole is body:
            raise
        return _decode(whole)


def parse_create(
    body: bytes, form: BodyForm, *, allow_http_webhooks: bool = False, allow_private_webhooks: bool = False
) -> CreateBody:
    """Check a create's body. Raise `BadRequest` if it is no JSON object, `Unprocessable` naming every bad field.

    A webhook's host is judged as far as it can be without looking it up; what it leads to is judged at delivery.
    """
    fields = parse_object(body)
    is_legacy = "webhook_completed" in fields and _use_legacy_webhook(fields)
    check = _Check(fields)
    known = _FIELDS[form]
    for name in fields:
        # Replicate's schema of trainings admits other fields; they mean nothing, so they are left out.
        if name not in known and form != "training" and len(check.refused) < _MAX_UNKNOWN_NAMED:
            text = f"Additional property {_printable(name)} is not allowed"
            check.refuse("additional_property_not_allowed", "", text)
    given = check.object("input")
    version = check.string("version", required=True) if form == "version" else None
    destination = check.string("destination", required=True) if form == "training" else None
    webhook = check.webhook(allow_http_webhooks, allow_private_webhooks) if "webhook" in fields else None
    events = check.events() if "webhook_events_filter" in fields else None
    stream = check.boolean("stream") if "stream" in fields and "stream" in known else None
    target = check.target(version) if version is not None else None
    if check.refused:
        raise Unprocessable([_by_legacy_name(each) for each in check.refused] if is_legacy else check.refused)
    return CreateBody(given, target, version, destination, webhook, events, stream)


def _use_legacy_webhook(fields: dict[str, Raw]) -> bool:
    """Give `webhook_completed` its meaning: `webhook` with the event `completed` only. Return whether it was used.

    `webhook` takes precedence. The official Python client still offers the old name, and Ruby's sends null for it
    (docs/replicate-api.md, Clients).
    """
    legacy = fields.pop("webhook_completed")
    if _is_null(legacy) or ("webhook" in fields and not _is_null(fields["webhook"])):
        return False
    fields["webhook"], fields["webhook_events_filter"] = legacy, Raw(b'["completed"]')
    return True


def _by_legacy_name(refused: InvalidField) -> InvalidField:
    if refused.field != "webhook":
        return refused
    return refused._replace(
        field="webhook_completed", description=refused.description.replace("webhook ", "webhook_completed ", 1)
    )


def _is_null(value: Raw) -> bool:
    return bytes(value).strip() == b"null"


class _Check(msgspec.Struct):
    """Reads fields one by one and collects what is wrong with them."""

    fields: dict[str, Raw]
    refused: list[InvalidField] = []

    def refuse(self, kind: str, field: str, description: str) -> None:
        self.refused.append(InvalidField(kind, field, description))

    def _require(self, name: str, wanted: str) -> None:
        if name not in self.fields:
            self.refuse("required", "", f"{name} is required")
        elif bytes(self.fields[name]).strip() == b"null":
            self.refuse("invalid_type", name, f"Invalid type. Expected: {wanted}, given: null")

    def _typed(self, name: str, wanted: str) -> bytes | None:
        raw = bytes(self.fields.get(name, b"null")).strip()
        kind = _TYPES.get(raw[:1], "number")
        if kind == "null":
            return None
        if kind != wanted:
            self.refuse("invalid_type", name, f"Invalid type. Expected: {wanted}, given: {kind}")
            return None
        return raw

    def object(self, name: str) -> bytes:
        raw = bytes(self.fields.get(name, b"")).strip()
        if raw[:1] == b"{":
            return raw
        self._require(name, "object")
        self._typed(name, "object")
        return b"{}"

    def string(self, name: str, *, required: bool = False) -> str | None:
        if required:
            self._require(name, "string")
        raw = self._typed(name, "string")
        return None if raw is None else msgspec.json.decode(raw, type=str)

    def boolean(self, name: str) -> bool | None:
        raw = self._typed(name, "boolean")
        return None if raw is None else raw == b"true"

    def target(self, version: str) -> Target | None:
        try:
            return parse_version(version)
        except ValueError as exc:
            self.refuse("invalid_value", "version", f"version is {exc}")
            return None

    def webhook(self, allow_http: bool, allow_private: bool) -> str | None:
        """Return the address in the form in which it is sent."""
        given = self.string("webhook")
        if given is None:
            return None
        try:
            return _webhook_url(given, allow_http=allow_http, allow_private=allow_private)
        except ValueError as exc:
            self.refuse("invalid_value", "webhook", f"webhook {exc}")
            return None

    def events(self) -> tuple[str, ...] | None:
        name = "webhook_events_filter"
        raw = self._typed(name, "array")
        if raw is None:
            return None
        try:
            events = msgspec.json.decode(raw, type=list[str])
        except msgspec.MsgspecError:
            self.refuse("invalid_type", name, "Invalid type. Expected: an array of strings")
            return None
        for event in events:
            if event not in WEBHOOK_EVENTS:
                self.refuse("enum", name, f"{name} must be one of the following: {', '.join(WEBHOOK_EVENTS)}")
                break
        return tuple(dict.fromkeys(events))


def _webhook_url(given: str, *, allow_http: bool, allow_private: bool) -> str:
    """Return a webhook's URL as it is sent. Raise `ValueError` that says what is wrong with it."""
    if len(given) > urls.MAX_LENGTH:
        raise ValueError(f"must be at most {urls.MAX_LENGTH} characters long")
    url = urls.as_sent(given.strip(" "))
    parts = urls.split(url)
    if parts.scheme != "https" and not allow_http:
        raise ValueError("must be an HTTPS URL")
    if not is_allowed_host(parts.hostname or "", allow_private=allow_private):
        raise ValueError("must not point to a private address")
    return url


def _printable(name: str) -> str:
    return name[:60].encode("unicode_escape").decode() if not name.isprintable() or len(name) > 60 else name
