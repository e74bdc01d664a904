"""Which URLs the gateway may fetch files and streams from, judged by the URL alone.

See docs/architecture.md, Files and outputs.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gateway.domain.urls import split

_HOST = re.compile(r"[a-z0-9._:-]+")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_ASCII_AUTHORITY = re.compile(r"[a-zA-Z]+://[\x21-\x2e\x30-\x7e]+(?:/|\Z)")
_MAX_URL = 4096


def is_trusted(url: str, base_url: str, trusted_hosts: Sequence[str]) -> bool:
    """Return whether the URL is on a trusted host. Plain http is allowed only if the API's base URL uses it."""
    if not url.isascii() and not _ASCII_AUTHORITY.match(url):
        return False  # before the host is normalised, which takes long for some texts
    try:
        parts, base = split(url), split(base_url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    # URL parsers disagree on where a host with unusual characters ends, so such hosts are refused.
    if parts.scheme not in ("https", base.scheme) or not _HOST.fullmatch(host) or "@" in parts.netloc:
        return False
    return is_base_host(url, base_url) or any(fnmatchcase(host, glob) for glob in trusted_hosts)


def is_base_host(url: str, base_url: str) -> bool:
    """Return whether a URL is on the API's host, on any port."""
    try:
        return (split(url).hostname or "").lower() == (split(base_url).hostname or "").lower()
    except ValueError:
        return False


def is_output(url: str, base_url: str, trusted_hosts: Sequence[str]) -> bool:
    """Return whether a string is the URL of an output file: on a trusted host, but not of the API itself.

    Plain http is allowed only on the API's host, for a simulator that has no certificate.
    """
    if len(url) > _MAX_URL or _NOT_IN_URLS.search(url) or not is_trusted(url, base_url, trusted_hosts):
        return False
    parts, base = split(url), split(base_url)
    if parts.scheme != "https" and not is_base_host(url, base_url):
        return False
    return (parts.scheme, parts.netloc.lower()) != (base.scheme, base.netloc.lower())
