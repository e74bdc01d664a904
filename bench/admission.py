"""Cost of request limits: polls with limits on team and key, compared with polls without limits.

    python -m bench.admission [--rounds 5] [--seconds 3] [--connections 64]

`limited` charges two buckets per poll and adds four headers; `by user` also names a user, which makes four buckets.
All run on one core, in alternating rounds. The last line is a JSON object; `check_us` is the cost of the check alone,
in microseconds.
"""

import time

from bench.installed import HEADERS, RATES, UNLIMITED, ask, finished, gateway, stub
from bench.load import http_request, same
from bench.rounds import Contender, alternate, options, rate_row, report, run
from gateway.domain.limits import Allowance, Limits
from gateway.domain.teams import Caller, Team
from gateway.throttling.rules.request_rates import RequestRates, admit


def check_us(checks: int) -> dict[str, float]:
    """Measure the check alone: no limit; team and key; team, key and user."""
    own = Limits(requests_per_minute=10**9, burst=10**9)
    allowance = Allowance(own=own, per_user=own)
    free = Caller(team=Team(name="a", scopes=frozenset()), key_id="k", scopes=frozenset(), models=())
    team = Team(name="b", scopes=frozenset(), allowance=allowance)
    limited = Caller(team=team, key_id="l", scopes=frozenset(), models=(), allowance=allowance)
    table, figures = RequestRates(), {}
    for name, caller, user in (("none", free, None), ("limited", limited, None), ("by_user", limited, "ann")):
        began = time.perf_counter()
        for _ in range(checks):
            table.known(caller)
            admit(table.buckets(caller, user), time.monotonic())
        figures[name] = round((time.perf_counter() - began) / checks * 1e6, 2)
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__)
    parser.set_defaults(connections=[64])
    parser.add_argument("--checks", type=int, default=200_000)
    given = parser.parse_args()
    with (
        stub() as upstream,
        gateway(upstream.origin, limits=UNLIMITED) as free,
        gateway(upstream.origin, limits=RATES) as limited,
    ):
        unlimited_url, limited_url = (
            f"{each.origin}/v1/predictions/{finished(each.origin)}" for each in (free, limited)
        )
        if "RateLimit" not in ask(limited_url)[0]:
            raise SystemExit("the limited gateway does not count")
        by_user = {**HEADERS, "Gateway-User": "ann"}
        contenders = {
            "unlimited": Contender(free, same(http_request(unlimited_url, HEADERS))),
            "limited": Contender(limited, same(http_request(limited_url, HEADERS))),
            "by user": Contender(limited, same(http_request(limited_url, by_user))),
        }
        table = []
        for connections in given.connections:
            found = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
            table += [
                rate_row(f"poll, {name} / unlimited", found[name], found["unlimited"], connections)
                for name in ("limited", "by user")
            ]
    report("admission", table, check_us=check_us(given.checks))


if __name__ == "__main__":
    run(main)
