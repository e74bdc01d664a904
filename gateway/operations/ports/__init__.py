"""What operations ask of the store and of other concepts."""
