"""The parts of the SQLite store: two threads, the schema, and one file for each role of `gateway.ports`."""
