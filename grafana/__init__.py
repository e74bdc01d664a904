"""Dashboards and alerts; see `docs/metrics.md` and `docs/alerts.md`."""
