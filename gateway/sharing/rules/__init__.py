"""Pure rules of sharing: determinism, fingerprints, data URIs, and the lifetime of cache entries."""
