"""HTTP in: parse, call one service, render."""
