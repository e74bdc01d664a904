"""Metadata of models: cached reads, input schemas, and the map from version to model."""
