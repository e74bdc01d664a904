"""Pure rules of money: prices, estimates, refusals, audits, and reports."""
