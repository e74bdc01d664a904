"""Pure views for operators: the usage page and the explanation of a prediction, as values."""
