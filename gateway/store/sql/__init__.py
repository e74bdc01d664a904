"""The SQL store: a writing and a reading thread, the schema, and one file for each role of the interface."""
