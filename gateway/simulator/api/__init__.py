"""HTTP routes of the simulator: one module per group, and a table of all routes."""
