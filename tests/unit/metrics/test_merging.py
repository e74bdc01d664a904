"""One page of metrics for all processes of a gateway."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics.merging import merge

TEXT = st.text(alphabet=st.sampled_from('ab ,={}"\\\nnode'), max_size=8)


def page(counts: dict[tuple[str, str], int], seconds: list[float]) -> str:
    """Return what a process shows."""
    registry = CollectorRegistry()
    counter = Counter("runs", "Runs, {of} a team.", ("team", "node"), registry=registry)
    for labels, count in counts.items():
        counter.labels(*labels).inc(count)
    histogram = Histogram("wait_seconds", "Waits.", registry=registry, buckets=(1, 5))
    for each in seconds:
        histogram.observe(each)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.dictionaries(st.tuples(TEXT, TEXT), st.integers(1, 9), max_size=3), st.lists(st.floats(0, 9), max_size=3))
def test_every_sample_of_every_process_is_there_with_its_process(counts, seconds):
    """Whatever is in the values of labels; a label `node` of the process's own is kept under another name."""
    pages = {"1": page(counts, seconds), "2": page({("x", "y"): 3}, [])}
    merged = samples(merge(pages))
    expected = {
        (name, frozenset({("node", process), *(("exported_node" if n == "node" else n, v) for n, v in labels)})): value
        for process, text in pages.items()
        for (name, labels), value in samples(text).items()
    }
    assert merged == expected


def test_each_metric_is_described_once():
    """Prometheus refuses a page that describes a metric twice."""
    text = merge({"1": page({("a", "b"): 1}, [1.0]), "2": page({("a", "b"): 2}, [2.0])})
    kinds = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds))
    # All samples of a metric follow its description.
    families = [family.name for family in text_string_to_metric_families(text)]
    assert len(families) == len(set(families))


def test_sample_without_labels_gets_one():
    assert merge({"2": "# TYPE up gauge\nup 1\nempty{} 2\n"}) == '# TYPE up gauge\nup{node="2"} 1\nempty{node="2"} 2\n'


def test_nothing_to_merge_is_an_empty_page():
    assert merge({}) == ""
