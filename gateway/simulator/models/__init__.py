"""The models that the simulator runs. Each computes something small for real, through the `Job` it is given."""
