"""Load the renderer, if the extra is installed."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

logger = logging.getLogger(__name__)

_EXTRA = frozenset({"jinja2", "markupsafe", "pygal"})


def load_renderer() -> "Renderer | None":
    """Return the renderer, or `None` without the extra `dashboard`. Reads files: do not call on the event loop."""
    try:
        from gateway.dashboard.render import Renderer  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as exc:
        if exc.name not in _EXTRA:
            raise
        logger.info("console not installed", extra={"missing": exc.name})
        return None
    return Renderer()
