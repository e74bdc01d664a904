"""Pure rules of webhooks: events to deliver, retries, and delivery slots."""
