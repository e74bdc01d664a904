"""Pure rules of predictions: adoption matching and run timings."""
