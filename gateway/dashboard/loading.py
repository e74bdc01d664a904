"""Whether the page can be drawn here."""

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.dashboard.render import Renderer

logger = logging.getLogger(__name__)

_EXTRA = frozenset({"jinja2", "markupsafe", "pygal"})


def load_renderer() -> "Renderer | None":
    """Make what draws the page; `None` where the extra `dashboard` is not installed. Reads files: not for the loop."""
    try:
        from gateway.dashboard.render import Renderer  # noqa: PLC0415 - it may not be there
    except ModuleNotFoundError as exc:
        if exc.name not in _EXTRA:
            raise
        logger.info("the usage page is not installed", extra={"missing": exc.name})
        return None
    return Renderer()
