"""Pure rules of operations: explanations and the view of the dashboard."""
