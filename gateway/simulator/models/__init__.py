"""Models of the simulator. Each computes something small and uses a `Job`."""
