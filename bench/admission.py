"""Cost of request limits: polls with limits on team and key, compared with polls without limits.

    python -m bench.admission [--rounds 5] [--seconds 4] [--connections 64]

`limited` charges two buckets per poll and adds four headers; `by_user` also names a user, which makes four buckets.
Servers run on core 1, in alternating rounds. The last line is a JSON object; `ratio` is limited to unlimited, and
`check_us` is the cost of the check alone, in microseconds.
"""

import argparse
import json
import statistics
import time
import urllib.request

from bench.load import loader, rate, server
from bench.poll import HEADERS, create
from gateway.domain.limits import Allowance, Limits
from gateway.domain.teams import Caller, Team
from gateway.throttling.rules.request_rates import RequestRates, admit

_CHECKS = 200_000


def check_us() -> dict[str, float]:
    """Measure the check alone: no limit; team and key; team, key and user."""
    own = Limits(requests_per_minute=10**9, burst=10**9)
    allowance = Allowance(own=own, per_user=own)
    free = Caller(team=Team(name="a", scopes=frozenset()), key_id="k", scopes=frozenset(), models=())
    team = Team(name="b", scopes=frozenset(), allowance=allowance)
    limited = Caller(team=team, key_id="l", scopes=frozenset(), models=(), allowance=allowance)
    table, figures = RequestRates(), {}
    for name, caller, user in (("none", free, None), ("limited", limited, None), ("by_user", limited, "ann")):
        began = time.perf_counter()
        for _ in range(_CHECKS):
            table.known(caller)
            admit(table.buckets(caller, user), time.monotonic())
        figures[name] = round((time.perf_counter() - began) / _CHECKS * 1e6, 2)
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    with server("gateway") as free, server("limited") as limited:
        urls = {name: create(stack["origin"], HEADERS)["urls"]["get"] for name, stack in
                (("unlimited", free), ("limited", limited))}  # fmt: skip
        with urllib.request.urlopen(urllib.request.Request(urls["limited"], headers=HEADERS), timeout=10) as answer:
            assert answer.headers["RateLimit"], "the limited gateway does not count"
        contenders = {
            "unlimited": {"url": urls["unlimited"], "headers": HEADERS},
            "limited": {"url": urls["limited"], "headers": HEADERS},
            "by_user": {"url": urls["limited"], "headers": {**HEADERS, "Gateway-User": "ann"}},
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(options.rounds):
            for name, ask in contenders.items():
                measured = rate(**ask, seconds=options.seconds, connections=options.connections)
                rates[name].append(measured)
                print(f"round {number + 1}  {name:<10} {measured:>10.0f} requests/s", flush=True)
    ratios = {
        name: round(
            statistics.median(mine / free for mine, free in zip(rates[name], rates["unlimited"], strict=True)), 3
        )
        for name in ("limited", "by_user")
    }
    result = {
        "bench": "admission",
        "load": loader(),
        "rounds": options.rounds,
        **{f"{name}_per_second": round(statistics.median(values)) for name, values in rates.items()},
        "ratio": ratios["limited"],
        "ratio_by_user": ratios["by_user"],
        "check_us": check_us(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
