"""Pure rules of files: identity of uploads."""
