"""Event streams of runs: one upstream connection for any number of readers, with a stored log to resume from."""
