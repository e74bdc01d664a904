"""Cache: what is shared, what is not and why, and how much that saves."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana import panels as p

_BOTH = '{team=~"$team", target=~"$target"}'
_LOOKUPS = '@cache_lookups_total{tier="predictions"'


def board() -> Dashboard:
    """Build the cache dashboard."""
    return p.board(
        "cache",
        "Gateway: cache",
        "Hits, joined predictions, misses and bypasses; stored results; savings.",
        {"Lookups": _lookups(), "New runs": _bypasses(), "Storage": _storage()},
        "team",
        "target",
    )


def _lookups() -> list[p.Panel]:
    def lookups(result: str) -> str:
        return f'sum(increase({_LOOKUPS}, result="{result}"}}[$__range]))'

    return [
        p.number("Hits", "Served from a finished run, in the time range.", p.COUNT, lookups("hit"), steps=p.GOOD),
        p.number("Joined", "Attached to a run in progress, in the time range.", p.COUNT, lookups("joined"),
                 steps=p.GOOD),
        p.number("Misses", "New runs that can be shared, in the time range.", p.COUNT, lookups("miss")),
        p.number("Bypasses", "New runs that cannot be shared, in the time range.", p.COUNT, lookups("bypass")),
        p.number("Hit ratio", "Hits and joined predictions as a fraction of shareable requests.", p.SHARE,
                 f'sum(increase({_LOOKUPS}, result=~"hit|joined"}}[$__range])) '
                 f'/ sum(increase({_LOOKUPS}, result!="bypass"}}[$__range]))', steps=p.GOOD),
        p.number("Dollars saved", "What hits and joined predictions would have cost, in the time range.", p.DOLLARS,
                 'sum(increase(@saved_usd_total{team=~"$team"}[$__range]))', steps=p.GOOD),
        p.lines("Lookups", "Lookups by result. Hits, joined, misses and bypasses add up to all.", p.PER_SECOND,
                {"{{result}}": f"sum by (result) (rate({_LOOKUPS}}}[$__rate_interval]))"}, stacked=True),
        p.bars("Shared by target", "Hits and joined predictions in the time range.", p.COUNT,
               {"{{target}} {{source}}": "topk(10, sum by (target, source) (increase(@predictions_created_total"
                '{team=~"$team", target=~"$target", source=~"hit|joined"}[$__range])))'}, steps=p.GOOD),
        p.lines("Savings", "Dollars per hour, by reason.", p.DOLLARS,
                {"{{reason}}": 'sum by (reason) (rate(@saved_usd_total{team=~"$team"}[$__rate_interval])) * 3600'},
                stacked=True),
    ]  # fmt: skip


def _bypasses() -> list[p.Panel]:
    return [
        p.bars("Bypasses by reason", "In the time range. A rule in `[[cache.rules]]` can avoid some of them.", p.COUNT,
               {"{{reason}}": "sum by (reason) (increase(@cache_bypasses_total[$__range]))"}, span=12),
        p.bars("Runs by target", "New runs in the time range: where sharing would save most.", p.COUNT,
               {"{{target}} {{source}}": "topk(10, sum by (target, source) (increase(@predictions_created_total"
                '{team=~"$team", target=~"$target", source=~"miss|bypass"}[$__range])))'}, span=12),
    ]  # fmt: skip


def _storage() -> list[p.Panel]:
    return [
        p.lines("Cached results", "Finished runs that later requests can reuse.", p.COUNT,
                {"results": "sum(@cache_entries)"}),
        p.lines("Cache size", "Limited by `[cache] max_bytes`.", p.BYTES, {"results": "sum(@cache_bytes)"}),
        p.lines("Evictions", "Results evicted to free space. If high, raise `max_bytes`.", p.PER_SECOND,
                {"evictions": "sum(rate(@cache_evictions_total[$__rate_interval]))"}),
        p.lines("Latency of hits", "Time from request to response, within the gateway.", p.SECONDS,
                p.quantiles("overhead_seconds", where='path="hit"'), steps=p.bad_from(0.025, 0.1)),
        p.lines("Metadata cache", "Requests for models, versions, collections and hardware, by result.", p.PER_SECOND,
                {"{{result}}": "sum by (result) "
                               '(rate(@cache_lookups_total{tier="metadata", result=~"hit|miss"}[$__rate_interval]))'}),
        p.bars("Uploads", "In the time range: sent upstream, deduplicated, or refused upstream.", p.COUNT,
               {"{{result}}": "sum by (result) (increase(@uploads_total[$__range]))"}),
    ]  # fmt: skip
