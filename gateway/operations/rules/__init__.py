"""Pure views for operators: the console and the explanation of a prediction, as values."""
