"""The life of a prediction: create, follow, query, cancel, expire, and adopt what an uncertain create left."""
