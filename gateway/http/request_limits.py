"""Admission at the edge: how many requests a caller may make, decided from memory before anything else is done.

Whatever comes with a key is counted once: hits, polls, lists, streams. A create over a rate is held, since between two
429s nothing slows the JavaScript client down, which has used up its six tries within 20 ms (docs/replicate-api.md,
Client retries); all else is refused at once. A refusal reads no body and asks neither store nor upstream.
"""

from ipaddress import IPv6Address, ip_address

from aiohttp import web
from multidict import CIMultiDict

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Prediction
from gateway.domain.teams import Caller
from gateway.errors import RateLimited, Unprocessable, UpstreamUnavailable
from gateway.http.base_url import is_trusted
from gateway.http.keys import AUTHENTICATOR, CLOCK, METRICS, SETTINGS
from gateway.money.rules import refusals
from gateway.throttling.hold_queue import HoldQueue
from gateway.throttling.rules import rate_headers, request_rates
from gateway.throttling.rules.request_rates import Bucket, RateExceeded, RateStatus, RequestRates

_LONGEST_USER = 200
_IPV6_NETWORK = 64
"""Bits of an IPv6 address that name one household or host (RFC 6177): it has all of the others to itself."""

RATES = web.AppKey("rates", RequestRates)
HOLDING = web.AppKey("holding", HoldQueue)
_ARRIVED = web.RequestKey("arrived", float)
_UNTIL = web.RequestKey("hold_until", float)
_BUCKETS = web.RequestKey("buckets", tuple[Bucket, ...])


def user_of(request: web.Request) -> str | None:
    """Read whom a server says that it asks for. Raise `Unprocessable` for what is no name."""
    user = request.headers.get("Gateway-User")
    if user is not None and not (user.isprintable() and 0 < len(user) <= _LONGEST_USER):
        raise Unprocessable.field("Gateway-User", f"Gateway-User must be 1 to {_LONGEST_USER} printable characters")
    return user


def address_of(request: web.Request) -> str | None:
    """Return the address that a request comes from: beyond the trusted proxies, if it passed some."""
    networks = request.app[SETTINGS].value.trusted_proxies
    address = request.remote
    if networks and is_trusted(address, networks):
        # Each proxy adds whom it was asked by at the end; what stands before a stranger is the stranger's word.
        for entry in reversed(",".join(request.headers.getall("X-Forwarded-For", ())).split(",")):
            address = entry.strip() or address
            if not is_trusted(address, networks):
                break
    return None if address is None else _counted_address(address)


def _counted_address(text: str) -> str:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(IPv6Address(int(address) >> (128 - _IPV6_NETWORK) << (128 - _IPV6_NETWORK)))
    return str(address)


async def admit(request: web.Request, caller: Caller, *, is_create: bool) -> None:
    """Count a request. Raise `RateLimited` if it is one too many; hold a create for a while before that."""
    table = request.app[RATES]
    known = table.known(caller)
    buckets = known.buckets
    if known.by_user or known.by_address:
        user = (caller.user if caller.is_public else user_of(request)) if known.by_user else None
        buckets = table.buckets(caller, user, address_of(request) if known.by_address else None)
    if not is_create and not buckets:
        return
    clock = request.app[CLOCK]
    now = clock.monotonic()
    if is_create:
        request[_ARRIVED], request[_UNTIL] = now, now + caller.team.max_wait_seconds
    if not buckets:
        return
    request[_BUCKETS] = buckets
    may_pass = not is_create or not request.app[HOLDING].has_line(caller.team.name)
    if may_pass and (over := request_rates.admit(buckets, now)) is None:
        return
    if is_create:
        over = await request.app[HOLDING].enqueue(caller.team.name, buckets, request[_UNTIL])
    if over is not None:
        raise _refusal(request, over, clock)
    if has_left(request):
        request_rates.give_back(buckets)
        raise UpstreamUnavailable("The caller had left when it was its turn.")


def admit_stream(request: web.Request, prediction: Prediction) -> None:
    """Count the reading of a stream, whose address is its permission, as one request of the prediction's owner."""
    owner = request.app[AUTHENTICATOR].owner(prediction.team, prediction.key_id)
    if owner is None:
        return
    table = request.app[RATES]
    buckets = table.buckets(owner, prediction.user if table.known(owner).by_user else None)
    if not buckets:
        return
    request[_BUCKETS] = buckets
    clock = request.app[CLOCK]
    if (over := request_rates.admit(buckets, clock.monotonic())) is not None:
        raise _refusal(request, over, clock)


def _refusal(request: web.Request, over: RateExceeded, clock: Clock) -> RateLimited:
    bucket, now = over.bucket, clock.monotonic()
    request.app[METRICS].request_refused(bucket.of)
    seconds = request_rates.retry_after(over)
    return RateLimited(
        f"Request was throttled. The limit of your {bucket.of} is {bucket.limit} requests per minute with a burst of "
        f"{bucket.rate.burst} requests. Your rate limit resets in ~{seconds}s.",
        retry_after=seconds,
        limit=_shown(request_rates.standing(bucket, now), clock),
    )


def has_left(request: web.Request) -> bool:
    """Say whether the caller has hung up."""
    return request.transport is None or request.transport.is_closing()


def hold_until(request: web.Request) -> float:
    """Return until when a create may be held, by the monotonic clock."""
    return request[_UNTIL]


def seconds_since_arrival(request: web.Request) -> float:
    """Return how long ago a create came in."""
    return request.app[CLOCK].monotonic() - request[_ARRIVED]


def limits(request: web.Request) -> list[dict[str, object]]:
    """Return the request rates that a request is counted by, as they are now: for `GET /gateway/limits`."""
    clock = request.app[CLOCK]
    now = clock.monotonic()
    return [_shown(request_rates.standing(bucket, now), clock) for bucket in request.get(_BUCKETS, ())]


def _shown(standing: RateStatus, clock: Clock) -> dict[str, object]:
    return refusals.rate_shown(
        standing.name,
        standing.of,
        limit=standing.limit,
        used=standing.used,
        remaining=standing.remaining,
        resets_at=clock.now() + standing.reset_seconds,
    )


def add_headers(request: web.Request, headers: CIMultiDict[str]) -> None:
    """Tell a caller whose rate is limited how much is left of it."""
    buckets = request.get(_BUCKETS)
    if buckets is None:
        return
    if "RateLimit" in headers:
        # A refusal by another limit, which it names already.
        headers["RateLimit-Policy"] = f"{rate_headers.policy(buckets)}, {headers['RateLimit-Policy']}"
        return
    name, left, seconds = rate_headers.state(buckets, request.app[CLOCK].monotonic())
    headers["RateLimit-Policy"] = rate_headers.policy(buckets)
    headers["RateLimit"] = f'"{name}";r={left};t={seconds}'
    # In place of upstream's, which are the account's.
    headers["ratelimit-remaining"] = str(left)
    headers["ratelimit-reset"] = str(seconds)
