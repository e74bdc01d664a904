"""The clock, tasks, settings that reloads replace, sleeping, random bytes, a small cache: what services need of a process."""
