"""replicate-gateway: an HTTP gateway between many callers and one Replicate account."""

__version__ = "0.1.0"
