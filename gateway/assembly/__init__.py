"""Builds every part from the config, opens the listeners, reloads the config, and shuts down."""
