"""For operators: health, the janitor, explain, dashboard data, and recent errors."""
