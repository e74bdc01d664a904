"""Pure rules of models: reading input schemas."""
