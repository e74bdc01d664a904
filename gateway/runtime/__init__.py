"""The clock, tasks, live settings, sleeping, random bytes and a small cache: what every service needs from the process."""
