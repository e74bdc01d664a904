"""The OpenAPI descriptions of both listeners: one `Operation` for each route, and the documents made of them."""
