"""replicate-gateway: many callers, one Replicate account."""

__version__ = "0.1.0"
