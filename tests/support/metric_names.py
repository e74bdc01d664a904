"""The metric and label names that dashboards and alerts may use."""

import re

from gateway.metrics import catalogue
from gateway.metrics.catalogue import Kind

STANDARD_LABELS = {"le", "instance", "job", "node", "alertname", "alertstate", "severity"}


def exported() -> dict[str, set[str]]:
    """Every name that queries may use, with its labels."""
    names: dict[str, set[str]] = {"process_resident_memory_bytes": set(), "process_cpu_seconds_total": set()}
    names |= {"process_start_time_seconds": set()}
    for family in catalogue.families():
        labels = {label.name for label in family.labels}
        endings = ("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",)
        names |= {family.sample + ending: labels for ending in endings}
    return names


def labels_in(expr: str) -> set[str]:
    """Every label that a query chooses or groups by."""
    chosen = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expr)
    grouped = re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expr)
    return {*chosen, *(name.strip() for group in grouped for name in group.split(","))}
