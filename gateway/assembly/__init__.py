"""Build every part from the config, open the listeners, reload the config and shut down."""
