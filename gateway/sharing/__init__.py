"""Which requests are the same: determinism, fingerprints, and cache entries."""
