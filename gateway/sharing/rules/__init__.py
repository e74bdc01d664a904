"""Pure rules of sharing: determinism, canonical input, fingerprints, cache decisions."""
