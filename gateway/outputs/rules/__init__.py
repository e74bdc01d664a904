"""Pure rules of stored outputs: what to copy, object names, byte ranges."""
