"""Clock, tasks, sleeping, randomness, and small caches."""
