"""The clock, tasks, live settings, sleeping, random bytes, a small cache: what services need from the process."""
