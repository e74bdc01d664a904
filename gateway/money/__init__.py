"""Prices, estimates, reservations, the ledger, budgets and usage."""
