"""The HTTP server side: listener, pipeline, routes and handlers."""
