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
    Page("predictions", "Predictions", "/dashboard/predictions"),
    Page("outputs", "Outputs", "/dashboard/outputs"),
    Page("usage", "Usage", "/dashboard/usage"),
    Page("limits", "Limits", "/dashboard/limits"),
    Page("webhooks", "Webhooks", "/dashboard/webhooks"),
)
OF_OPERATORS = (Page("nodes", "Nodes", "/dashboard/nodes"),)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a page."""

    page: str
    """The name of the page, which is that of its template."""
    team: str | None
    """The team whose data is shown; `None` for the operators, who see all."""
    can_sign_out: bool = False
    entry: str | None = None
    """The entry of the navigation that a page belongs to, unless that is its own."""
    form_token: str = ""
    """What every form of the page sends back: see `gateway.access.sessions`."""

    @property
    def pages(self) -> tuple[Page, ...]:
        """The navigation."""
        return PAGES if self.team is not None else PAGES + OF_OPERATORS
