"""What predictions need from the store: predictions, and runs that several predictions share."""
