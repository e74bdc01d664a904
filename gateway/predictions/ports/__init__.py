"""What predictions ask of the store and of other concepts."""
