"""Pure rules of webhooks: which events are due, when a delivery is retried, and which one is sent next."""
