"""`gateway demo`: a simulator, a gateway before it, two teams with keys, and a page to try them in.

Everything lives in a temporary folder and on loopback. The page has an origin of its own, so that what works in it
works in anybody's page; and as anybody's page should, it holds no team's key: its server does, and mints browser tokens
with it.
"""

from gateway.demo.run import run_demo
from gateway.demo.stack import Demo, DemoError, demo

__all__ = ["Demo", "DemoError", "demo", "run_demo"]
