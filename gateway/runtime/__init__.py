"""The clock, tasks, sleeping, random bytes and a small cache: what every service needs from the process."""
