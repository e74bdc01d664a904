"""The usage page as it is drawn: templates, charts, and the files that the browser loads with it.

What draws it (`jinja2`, `pygal`) comes with the extra `dashboard`; without it the page says so. It knows boards
(`gateway.operations.rules.dashboard_view`) and nothing of where they come from or who looks.
"""
