"""What operations need from others: dashboard figures and histories for explain."""
