"""HTTP out: the Replicate client and the readers of upstream's streams."""
