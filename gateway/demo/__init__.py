"""`gateway demo`: a simulator, a gateway in front of it, two teams with keys, and a demo page.

Everything uses loopback, and a temporary folder or that of `--data`. The page has its own origin, so what works in it
works in any web page. It has no team's key: its server has the keys and mints browser tokens.
"""

from gateway.demo.request_log import request_log
from gateway.demo.run import run_demo
from gateway.demo.stack import Demo, DemoError, demo

__all__ = ["Demo", "DemoError", "demo", "request_log", "run_demo"]
