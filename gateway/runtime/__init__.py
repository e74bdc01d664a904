"""What every service needs of the process: clock, tasks, live settings, sleeping, random bytes, a small cache."""
