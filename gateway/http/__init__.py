"""HTTP in: the server, its middlewares and its routes."""
