"""Alternatives, on the same work in the same run: cache hits and polls.

    python -m bench.peers.install
    python -m bench.peers [--rounds 3] [--seconds 3] [--connections 64] [--only "nginx proxy" LiteLLM]

The gateway answers hits and polls itself, with everything on: keys, limits, ledger, durable record, metrics. A peer
does its least: it relays each request to a stub of Replicate on another core, which answers at once; "nginx cache"
answers from its cache. Portkey is asked for a chat completion in place of a create. Each has one process on the same
core, and the rounds alternate. `ratio` is the gateway's requests per second divided by the peer's. A peer that is not
installed is skipped, with the reason. The last line is a JSON object.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.installed import BODY, CREATE, HEADERS, POST, ask, finished, gateway, hit_bytes, stub
from bench.load import http_request, same
from bench.peers.contenders import PEERS, Peer, Work
from bench.processes import Server
from bench.rounds import Contender, Row, alternate, markdown, options, rate_row, report, run


def asked(peer: Peer, server: Server, upstream: str, work: Work) -> Contender | None:
    """Return what a peer is asked for, after one answer was checked; `None` if it cannot do it. Exit on errors."""
    request = peer.ask(server, upstream, work)
    if request is None:
        return None
    if b'"id"' not in (answer := ask(*request)[1]):
        raise SystemExit(f"the answer is no prediction: {answer[:200]!r}")
    return Contender(server, same(http_request(*request)))


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__, rounds=3)
    parser.set_defaults(connections=[64])
    parser.add_argument("--only", nargs="+", choices=[each.name for each in PEERS], help="these peers only")
    given = parser.parse_args()
    wanted = [each for each in PEERS if given.only is None or each.name in given.only]
    goals = {each.name: each.goal for each in PEERS}
    skipped: dict[str, str] = {}
    table: list[Row] = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(stub())
        ours = stack.enter_context(gateway(upstream.origin))
        poll = f"/v1/predictions/{finished(ours.origin)}"
        hit_bytes(ours.origin)
        works = {"hit": Work(CREATE, POST, BODY), "poll": Work(poll, HEADERS, None)}
        contenders = {
            name: {"ours": Contender(ours, same(http_request(ours.origin + work.url, work.headers, work.body)))}
            for name, work in works.items()
        }
        for peer in wanted:
            if (reason := peer.missing()) is not None:
                skipped[peer.name] = reason
                continue
            folder = Path(tempfile.mkdtemp(dir=root))
            try:
                server = stack.enter_context(peer.start(upstream.origin, folder))
                found = {name: asked(peer, server, upstream.origin, work) for name, work in works.items()}
            except (SystemExit, OSError) as error:
                skipped[peer.name] = str(error)
                continue
            for name, contender in found.items():
                if contender is None:
                    skipped[f"{peer.name}, {name}"] = "it has no such request"
                else:
                    contenders[name][peer.name] = contender
        for name, each in contenders.items():
            print(name)
            for connections in given.connections:
                samples = alternate(each, rounds=given.rounds, seconds=given.seconds, connections=connections)
                table += [
                    rate_row(f"{name}: ours / {other}", samples["ours"], samples[other], connections, goals[other])
                    for other in each
                    if other != "ours"
                ]
    print(f"\n{markdown(table)}\n")
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    report("peers", table, skipped=skipped)


if __name__ == "__main__":
    run(main)
