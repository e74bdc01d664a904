"""The OpenAPI descriptions of both listeners: one `RouteDescription` for each route, and the documents made of them."""
