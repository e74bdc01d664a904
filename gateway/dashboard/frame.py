"""What surrounds each page: whose data it shows, the navigation, and the token of its forms."""

from typing import NamedTuple

import msgspec


class NavigationEntry(NamedTuple):
    """An entry of the navigation."""

    name: str
    title: str
    path: str


PAGES = (
    NavigationEntry("board", "Overview", "/dashboard"),
    NavigationEntry("predictions", "Predictions", "/dashboard/predictions"),
    NavigationEntry("outputs", "Outputs", "/dashboard/outputs"),
    NavigationEntry("usage", "Usage", "/dashboard/usage"),
    NavigationEntry("limits", "Limits", "/dashboard/limits"),
    NavigationEntry("webhooks", "Webhooks", "/dashboard/webhooks"),
)
OF_MANAGERS = (
    NavigationEntry("keys", "Keys", "/dashboard/keys"),
    NavigationEntry("audit", "Audit", "/dashboard/audit"),
)
OF_OPERATORS = (NavigationEntry("nodes", "Nodes", "/dashboard/nodes"),)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a page."""

    page: str
    """The name of the page, which is that of its template."""
    team: str | None
    """The team whose data is shown; `None` for the operators, who see all."""
    may_manage: bool = False
    """Whether the visitor may see and change keys, and see the audit log."""
    can_sign_out: bool = False
    entry: str | None = None
    """The entry of the navigation that a page belongs to, unless that is its own; `""` for none."""
    form_token: str = ""
    """What every form of the page sends back: see `gateway.access.sessions`."""

    @property
    def current(self) -> str:
        """The current entry of the navigation; `""` for none."""
        return self.page if self.entry is None else self.entry

    @property
    def pages(self) -> tuple[NavigationEntry, ...]:
        """The navigation."""
        return PAGES + OF_MANAGERS * self.may_manage + OF_OPERATORS * (self.team is None)
