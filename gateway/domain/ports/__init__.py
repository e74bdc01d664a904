"""Protocols that three or more concepts share: clock, observers, records, tracing, upstream."""
