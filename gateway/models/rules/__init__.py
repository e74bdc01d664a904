"""Read the inputs that matter from a version's schema."""
