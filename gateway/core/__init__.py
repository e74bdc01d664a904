"""The rules: functions from values to values. No I/O, no clock, no event loop; time, jitter and ids are arguments."""
