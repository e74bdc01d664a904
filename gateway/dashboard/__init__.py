"""Renders the console: templates, charts and static files.

Requires `jinja2` and `pygal`, the extra `dashboard`. It receives a `Board` and knows nothing about access or data
sources.
"""
