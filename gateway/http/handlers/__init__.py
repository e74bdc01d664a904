"""Request handlers, one file per family of routes. A handler parses the request, calls one service and renders."""
