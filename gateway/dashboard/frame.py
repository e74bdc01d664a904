"""What surrounds each page: whose data it shows, the navigation, and the token of its forms."""

from typing import NamedTuple

import msgspec


class Page(NamedTuple):
    """An entry of the navigation."""

    name: str
    title: str
    path: str


PAGES = (
    Page("board", "Overview", "/dashboard"),
    Page("usage", "Usage", "/dashboard/usage"),
)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a page."""

    page: str
    """The name of the page, which is that of its template."""
    team: str | None
    """The team whose data is shown; `None` for the operators, who see all."""
    can_sign_out: bool = False
    form_token: str = ""
    """What every form of the page sends back: see `gateway.access.sessions`."""

    @property
    def pages(self) -> tuple[Page, ...]:
        """The navigation."""
        return PAGES
