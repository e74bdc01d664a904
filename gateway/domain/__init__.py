"""Values that three or more concepts share. No I/O, no clock."""
