"""Authentication and authorization: keys, browser tokens, sessions, and policy."""
