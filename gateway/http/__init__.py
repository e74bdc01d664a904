"""HTTP in: the public listener. Parse a request, call one service, render the answer."""
