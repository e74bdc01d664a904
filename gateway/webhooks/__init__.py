"""Deliver webhooks to callers: queue, retries, signing secrets."""
