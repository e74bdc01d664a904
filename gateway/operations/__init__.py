"""What operators look at and what cleans up: health, janitor, explain, dashboard data, recent errors."""
