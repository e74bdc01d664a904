"""The HTTP server side: listener, middlewares, routes and handlers."""
