"""Pure rules of money: what a run used, what it costs, what is estimated, and how refusals and reports read."""
