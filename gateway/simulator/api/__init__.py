"""The HTTP side of the simulator: one module for each group of routes, one table of all of them."""
