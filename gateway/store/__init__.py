"""The Store interface and its backends."""
