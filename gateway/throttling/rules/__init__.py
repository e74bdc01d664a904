"""Pure rules of throttling: token buckets, the fair queue, the learned rate."""
