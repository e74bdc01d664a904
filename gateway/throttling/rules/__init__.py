"""Pure rules of rates: token buckets, fair queueing, the adaptive rate, and rate-limit headers."""
