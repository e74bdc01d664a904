"""Pure rules about runs: which listed run fits an uncertain create, how often runs are polled, and their durations."""
