"""Recognise origin patterns that cover the sites of strangers, such as `https://*.com` and `https://*.github.io`.

A small rule in place of the Public Suffix List, which has 10,000 entries and changes weekly. It finds domains of one
label, second-level domains of countries (`co.uk`, `com.au`) and the best-known hosting platforms. It is
used for a warning only.
"""

from typing import Final

_HOSTS_OF_PAGES: Final = frozenset(
    {
        "amazonaws.com", "appspot.com", "azurestaticapps.net", "azurewebsites.net", "blogspot.com", "cloudfront.net",
        "codesandbox.io", "csb.app", "deno.dev", "firebaseapp.com", "fly.dev", "github.dev", "github.io", "gitlab.io",
        "glitch.me", "herokuapp.com", "lovable.app", "netlify.app", "ngrok.app", "ngrok.io", "ngrok-free.app",
        "onrender.com", "pages.dev", "railway.app", "replit.app", "replit.dev", "run.app", "stackblitz.io",
        "surge.sh", "trycloudflare.com", "vercel.app", "web.app", "webcontainer.io", "workers.dev",
    }
)  # fmt: skip
"""Domains below which anybody gets a site. Not complete."""
_COUNTRY_LENGTH: Final = 2
_LONGEST_GENERIC: Final = 3
_LOCAL: Final = frozenset({"localhost", "test", "internal", "local", "lan"})
"""Domains of one label that have no strangers."""


def is_public_suffix(domain: str) -> bool:
    """Return whether strangers probably have sites below this domain."""
    labels = domain.lower().split(".")
    if len(labels) == 1:
        return labels[0] not in _LOCAL
    is_of_country = len(labels) == 2 and len(labels[1]) == _COUNTRY_LENGTH
    return domain.lower() in _HOSTS_OF_PAGES or (is_of_country and len(labels[0]) <= _LONGEST_GENERIC)
