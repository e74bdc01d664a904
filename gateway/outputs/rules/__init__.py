"""Pure rules of stored outputs: which strings are files, when links are replaced, and byte ranges."""
