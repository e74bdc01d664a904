"""Lines of the log."""

REGISTERED = 'p@ss "word"\\n/x'
