"""Webhook deliveries: the queue, retries, and signatures."""
