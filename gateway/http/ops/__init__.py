"""The operators' listener: health, metrics, the usage page, and the admin routes."""
