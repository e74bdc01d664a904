"""Who calls and what they can do: keys, browser tokens, sessions, target policy."""
