"""Request rate limits: how many requests a caller may make, decided in memory before any other work.

Every request with a key counts once: cache hits, polls, lists, streams. A create over a rate is queued, because the
JavaScript client does not back off after a 429 and uses up its six tries within 20 ms (docs/replicate-api.md, Client
retries). Any other request over a rate is refused immediately. A refusal reads no body and uses neither store nor
upstream.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address, ip_address

from aiohttp import web
from multidict import CIMultiDict

from gateway.domain.create_request import no_departure
from gateway.domain.hold import Hold
from gateway.domain.limits import OWN_OF_PAGES
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import rate_status
from gateway.domain.records import Prediction
from gateway.domain.teams import Caller
from gateway.errors import CallerLeft, RateLimited, Unprocessable
from gateway.http.base_url import is_trusted
from gateway.http.keys import AUTHENTICATOR, CALLER, CLOCK, HOLD, METRICS, SETTINGS
from gateway.http.prefer import parse_cancel_after
from gateway.http.server import Connection
from gateway.money.rules import refusals
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.hold_queue import LEFT_FOR_A_RATE, HoldQueue
from gateway.throttling.rules import rate_headers, request_rates
from gateway.throttling.rules.request_rates import Bucket, RateExceeded, RateStatus, RequestRates

_MAX_USER = 200
_IPV6_PREFIX = 64
"""Bits of an IPv6 address that identify a site (RFC 6177). One client can use every address below that prefix."""

RATES = web.AppKey("rates", RequestRates)
HOLD_QUEUE = web.AppKey("hold_queue", HoldQueue)
_ARRIVED = web.RequestKey("arrived", float)
HOLD_UNTIL = web.RequestKey("hold_until", float)
"""The time until which a create may be queued, by the monotonic clock."""
BUCKETS = web.RequestKey("buckets", tuple[Bucket, ...])
"""What a request was counted in, if its caller has a request rate."""


def user_of(request: web.Request) -> str | None:
    """Read `Gateway-User`: the end user for whom a server makes the request. Raise `Unprocessable` if it is invalid."""
    user = request.headers.get("Gateway-User")
    if user is not None and not (user.isprintable() and 0 < len(user) <= _MAX_USER):
        raise Unprocessable.field("Gateway-User", f"Gateway-User must be 1 to {_MAX_USER} printable characters")
    return user


def address_of(request: web.Request) -> str | None:
    """Return the client's address: the nearest one that is not a trusted proxy. IPv6 addresses are cut to /64."""
    networks = request.app[SETTINGS].value.trusted_proxies
    address = request.remote
    if networks and is_trusted(address, networks):
        # Each proxy appends the address of its client. Entries before the first untrusted address may be forged.
        for entry in reversed(",".join(request.headers.getall("X-Forwarded-For", ())).split(",")):
            address = _without_port(entry.strip()) or address
            if not is_trusted(address, networks):
                break
    return None if address is None else rate_limited_address(address)


def _without_port(entry: str) -> str:
    """Return the address of an entry of X-Forwarded-For, to which some proxies add the port of the client."""
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    host, colon, port = entry.rpartition(":")
    return host if colon and port.isdecimal() and ":" not in host else entry


def rate_limited_address(text: str) -> str:
    """Return the address under which a client is counted: IPv6 addresses are cut to /64."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> (128 - _IPV6_PREFIX) << (128 - _IPV6_PREFIX)))
    return str(address)


async def admit(request: web.Request, caller: Caller, *, is_create: bool) -> None:
    """Count a request against its rates.

    A create over a rate waits in the hold queue for up to the team's `max_wait_seconds`. Raise `RateLimited` if the
    request does not fit, `CallerLeft` if the client disconnected while the create was queued.
    """
    table = request.app[RATES]
    known = table.known(caller)
    buckets = known.buckets
    if known.by_user or known.by_address:
        # A browser token is minted for one user; only a server's key may name the user of each request.
        user = (caller.user if caller.is_public else user_of(request)) if known.by_user else None
        buckets = table.buckets(caller, user, address_of(request) if known.by_address else None)
    if not is_create and not buckets:
        return
    clock = request.app[CLOCK]
    now = clock.monotonic()
    if is_create:
        patience = caller.team.max_wait_seconds
        if "Cancel-After" in request.headers:
            patience = _patience(request, patience)
        request[_ARRIVED], request[HOLD_UNTIL] = now, now + patience
        request[HOLD] = Hold()
    if not buckets:
        return
    request[BUCKETS] = buckets
    # A create does not overtake the team's queued creates.
    may_pass = not is_create or not request.app[HOLD_QUEUE].has_line(caller.team.name)
    exceeded = None
    if may_pass and (exceeded := table.admit(buckets, now)) is None:
        return
    if may_pass and isinstance(table, DividedRequestRates) and (exceeded := await table.take(buckets)) is None:
        return
    if is_create:
        exceeded = await _hold(request, caller, buckets, exceeded)
        if request[HOLD_UNTIL] > now and has_left(request):
            if exceeded is None:
                table.give_back(buckets)
            raise CallerLeft(LEFT_FOR_A_RATE)
    if exceeded is not None:
        raise _refusal(request, exceeded, clock)


async def admit_stream(request: web.Request, prediction: Prediction) -> None:
    """Count opening a stream as one request of the key that created the prediction; the request itself has no key.

    Raise `RateLimited`. Streams of a key that no longer exists are not counted.
    """
    owner = await request.app[AUTHENTICATOR].owner(prediction.team, prediction.key_id)
    if owner is None:
        return
    table = request.app[RATES]
    buckets = table.buckets(owner, prediction.user if table.known(owner).by_user else None)
    if not buckets:
        return
    request[BUCKETS] = buckets
    clock = request.app[CLOCK]
    exceeded = table.admit(buckets, clock.monotonic())
    if exceeded is not None and isinstance(table, DividedRequestRates):
        exceeded = await table.take(buckets)
    if exceeded is not None:
        raise _refusal(request, exceeded, clock)


def _refusal(request: web.Request, exceeded: RateExceeded, clock: Clock) -> RateLimited:
    bucket, now = exceeded.bucket, clock.monotonic()
    request.app[METRICS].request_refused(bucket.of)
    seconds = request_rates.retry_after(exceeded)
    return RateLimited(
        f"Request was throttled. The limit of your {bucket.of} is {bucket.limit} requests per minute with a burst of "
        f"{bucket.rate.burst} requests. Your rate limit resets in ~{seconds}s.",
        retry_after=seconds,
        limit=_render(request_rates.status(bucket, now), clock),
    )


def _patience(request: web.Request, seconds: float) -> float:
    """Return for how long a create may be held: the team's setting, at most the caller's own deadline."""
    # The handler refuses one that cannot be read.
    with suppress(ValueError):
        return min(seconds, parse_cancel_after(request.headers["Cancel-After"]) or seconds)
    return seconds


async def _hold(
    request: web.Request, caller: Caller, buckets: tuple[Bucket, ...], exceeded: RateExceeded | None
) -> RateExceeded | None:
    clock, queue = request.app[CLOCK], request.app[HOLD_QUEUE]
    began = clock.monotonic()
    try:
        if has_left(request):
            raise CallerLeft(LEFT_FOR_A_RATE)
        return await queue.enqueue(
            caller.team.name, buckets, request[HOLD_UNTIL], partial(add_departure_listener, request)
        )
    finally:
        # A create that is behind others of its team waits for the same rate.
        bucket = exceeded.bucket if exceeded is not None else buckets[0]
        limit = rate_status(request_rates.NAME, bucket.of, bucket.limit)
        request[HOLD].add(clock.monotonic() - began, limit)


def has_left(request: web.Request) -> bool:
    """Return whether the client of a held create has left: it has closed its connection, or its half of it."""
    transport, connection = request.transport, request.protocol
    if transport is None or transport.is_closing():
        return True
    return isinstance(connection, Connection) and connection.has_input_ended


def add_departure_listener(request: web.Request, callback: Callable[[], None]) -> Callable[[], None]:
    """Call `callback` when the client leaves, as in `has_left`; return what removes it."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return no_departure(callback)
    return connection.add_departure_listener(callback)


def seconds_since_arrival(request: web.Request) -> float:
    """Return how long ago a create arrived."""
    return request.app[CLOCK].monotonic() - request[_ARRIVED]


def limits(request: web.Request) -> list[dict[str, object]]:
    """Return the request rates that apply to a request, and their current usage, for `GET /gateway/limits`.

    Publishable keys and browser tokens see the rates of their user, address and token only.
    """
    clock, is_public = request.app[CLOCK], request[CALLER].is_public
    now = clock.monotonic()
    return [
        _render(request_rates.status(bucket, now), clock)
        for bucket in request.get(BUCKETS, ())
        if not is_public or bucket.of in OWN_OF_PAGES or bucket.label == "token-requests"
    ]


def _render(rate: RateStatus, clock: Clock) -> dict[str, object]:
    resets_at = clock.now() + rate.reset_seconds
    return refusals.shown(
        rate_status(rate.name, rate.of, rate.limit, used=rate.used, remaining=rate.remaining, resets_at=resets_at)
    )


def add_headers(request: web.Request, headers: CIMultiDict[str]) -> None:
    """Add the `RateLimit` headers to the response of a caller with a request rate."""
    buckets = request.get(BUCKETS)
    if buckets is None:
        return
    if "RateLimit" in headers:
        # A refusal by another limit, whose state is already in the headers.
        headers["RateLimit-Policy"] = f"{rate_headers.policy(buckets)}, {headers['RateLimit-Policy']}"
        return
    headers.update(_headers(request, buckets))


def lines(request: web.Request) -> str:
    """Return what `add_headers` adds for a caller with a request rate, as lines of a response's head.

    The response is none that a limit refuses.
    """
    return "".join([f"{name}: {value}\r\n" for name, value in _headers(request, request[BUCKETS])])


def _headers(request: web.Request, buckets: tuple[Bucket, ...]) -> tuple[tuple[str, str], ...]:
    name, remaining, seconds = rate_headers.state(buckets, request.app[CLOCK].monotonic())
    return (
        ("RateLimit-Policy", rate_headers.policy(buckets)),
        ("RateLimit", f'"{name}";r={remaining};t={seconds}'),
        # Replace upstream's values, which describe the account.
        ("ratelimit-remaining", str(remaining)),
        ("ratelimit-reset", str(seconds)),
    )
