"""What is shared, what is not and why, and what that saves?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_BOTH = '{team=~"$team", target=~"$target"}'
_LOOKUPS = '@cache_lookups_total{tier="predictions"'


def board() -> Dashboard:
    """Make the dashboard of what is shared."""
    return p.board(
        "cache",
        "Gateway: cache",
        "Hits, joined predictions, misses and bypasses; what is kept; what that saves.",
        {"Shared": _shared(), "Why not": _bypasses(), "Kept": _kept()},
        "team",
        "target",
    )


def _shared() -> list[p.Panel]:
    def looked(result: str) -> str:
        return f'sum(increase({_LOOKUPS}, result="{result}"}}[$__range]))'

    return [
        p.number("Hits", "Answered from a finished run, in the range.", p.COUNT, looked("hit"), steps=p.GOOD),
        p.number("Joined", "Attached to a run in flight, in the range.", p.COUNT, looked("joined"), steps=p.GOOD),
        p.number("Misses", "New runs that others may share, in the range.", p.COUNT, looked("miss")),
        p.number("Bypasses", "New runs that nobody else may use, in the range.", p.COUNT, looked("bypass")),
        p.number("Hit ratio", "Hits and joined among all that could be shared at all.", p.SHARE,
                 f'sum(increase({_LOOKUPS}, result=~"hit|joined"}}[$__range])) '
                 f'/ sum(increase({_LOOKUPS}, result!="bypass"}}[$__range]))', steps=p.GOOD),
        p.number("Dollars saved", "What the shared ones would have cost, in the range.", p.DOLLARS,
                 'sum(increase(@saved_usd_total{team=~"$team"}[$__range]))', steps=p.GOOD),
        p.lines("Lookups", "They add up: hits, joined, misses, bypasses.", p.PER_SECOND,
                {"{{result}}": f"sum by (result) (rate({_LOOKUPS}}}[$__rate_interval]))"}, stacked=True),
        p.bars("Shared by target", "Hits and joined predictions in the range.", p.COUNT,
               {"{{target}} {{source}}": "topk(10, sum by (target, source) (increase(@predictions_created_total"
                '{team=~"$team", target=~"$target", source=~"hit|joined"}[$__range])))'}, steps=p.GOOD),
        p.lines("Saving", "Dollars an hour, by what saved them.", p.DOLLARS,
                {"{{reason}}": 'sum by (reason) (rate(@saved_usd_total{team=~"$team"}[$__rate_interval])) * 3600'},
                stacked=True),
    ]  # fmt: skip


def _bypasses() -> list[p.Panel]:
    return [
        p.bars("Bypasses by reason", "In the range. A rule in `[[cache.rules]]` can mend some of them.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@cache_bypasses_total[$__range]))"}, span=12),
        p.bars("Runs by target", "New runs in the range: what sharing would be worth where.", p.COUNT,
               {"{{target}} {{source}}": "topk(10, sum by (target, source) (increase(@predictions_created_total"
                '{team=~"$team", target=~"$target", source=~"miss|bypass"}[$__range])))'}, span=12),
    ]  # fmt: skip


def _kept() -> list[p.Panel]:
    return [
        p.lines("Results kept", "Finished runs that may answer later requests.", p.COUNT,
                {"results": "sum(@cache_entries)"}),
        p.lines("Their size", "Bounded by `[cache] max_bytes`.", p.BYTES, {"results": "sum(@cache_bytes)"}),
        p.lines("Evictions", "Results that went for want of room: `max_bytes` may be too small.", p.PER_SECOND,
                {"evictions": "sum(rate(@cache_evictions_total[$__rate_interval]))"}),
        p.lines("Time of a hit", "The gateway's own time, from request to answer.", p.SECONDS,
                p.quantiles("overhead_seconds", where='path="hit"'), steps=p.bad_from(0.025, 0.1)),
        p.lines("Metadata", "Models, versions, collections, hardware: answered from memory or not.", p.PER_SECOND,
                {"{{result}}": "sum by (result) "
                               '(rate(@cache_lookups_total{tier="metadata", result=~"hit|miss"}[$__rate_interval]))'}),
        p.bars("Uploads", "In the range: sent upstream, known there already, refused by it.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@uploads_total[$__range]))"}),
    ]  # fmt: skip
