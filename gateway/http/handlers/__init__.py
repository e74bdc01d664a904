"""Request handlers, one file for each family of routes: parse, call one service, render."""
