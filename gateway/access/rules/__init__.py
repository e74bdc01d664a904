"""Pure rules of access: the form of API keys."""
