"""Predictions: creating, following, reading, cancelling and expiring them, and adopting runs of uncertain creates."""
