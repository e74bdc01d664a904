"""Pure rules about runs: which listed run fits an uncertain create, and how long runs wait and take."""
