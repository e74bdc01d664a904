"""`python -m gateway.metrics` prints `docs/metrics.md`."""

import sys

from gateway.metrics import page

sys.stdout.write(page.render())
