"""`python -m gateway.metrics` prints the page of all metrics."""

import sys

from gateway.metrics import page

sys.stdout.write(page.render())
