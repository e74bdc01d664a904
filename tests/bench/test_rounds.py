"""Summaries of rounds, and the table."""

from bench.__main__ import saturation
from bench.rounds import markdown, ratios, row, spread


def test_a_ratio_is_that_of_one_round():
    """The machine was half as fast in the second round, for both: the ratio is the same."""
    assert ratios([50.0, 25.0, 60.0], [100.0, 50.0, 100.0]) == {"median": 0.5, "min": 0.5, "max": 0.6}


def test_an_unknown_value_makes_the_summary_unknown():
    assert spread([1.0, None]) is None
    assert spread([]) is None
    assert spread([3.0, 1.0, 2.0], 0) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_the_table_has_a_line_for_each_row_and_aligned_columns():
    rows = [row("hit", "1/s", [1000.0, 2000.0, 1500.0], [3000.0, 4000.0, 3000.0], digits=0, goal="0.40")]
    memory = row("memory", "KiB", [17.4], [11.2], digits=1, goal="6 KiB more", differs=True)
    rows.append({**memory, "ours_cpu_us": spread([12.5]), "reference_cpu_us": spread([10.0])})
    lines = markdown(rows).splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells[:7] == ["hit", "1/s", "1,500", "3,000", "0.5 (0.333 to 0.5)", "", "0.40"]
    assert [cell.strip() for cell in lines[3].split("|")[6:9]] == ["6.2", "6 KiB more", "12.5 / 10"]


def test_the_output_says_whether_the_servers_were_the_limit():
    shares = {"ours_cpu_share": spread([0.98]), "reference_cpu_share": spread([0.9, 0.95, 1.0])}
    rows = [
        {"path": "hit, 64 connections", **shares, "load_cpu": spread([0.2, 0.3])},
        {"path": "hit, 1 connection", **shares, "reference_cpu_share": spread([0.4]), "load_cpu": spread([0.5])},
        row("memory", "KiB", [1.0], [2.0]),
    ]
    text = saturation(rows)
    assert "the gateway used at least 98% of its core" in text
    assert "reference 95%" in text
    assert "at most 30%" in text
    assert "Nothing" in saturation(rows[2:])
