"""The operators' listener: metrics, probes, administration and the dashboard."""
