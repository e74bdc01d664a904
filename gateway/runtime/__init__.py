"""The clock, tasks, live settings, sleeping, random bytes and a small cache: what services need from the process."""
