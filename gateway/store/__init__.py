"""Memory: the backends behind the Store of `gateway.ports`."""
