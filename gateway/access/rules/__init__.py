"""The format of API keys: make, parse, compare and redact."""
