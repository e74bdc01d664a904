"""Which of upstream's hosts bytes may be fetched from, as far as a URL alone tells.

See docs/architecture.md, Files and outputs.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

_HOST = re.compile(r"[a-z0-9._:-]+")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f-\xa0\\]")
_LONGEST_URL = 4096


def is_trusted(url: str, base_url: str, trusted_hosts: Sequence[str]) -> bool:
    """Say whether bytes may be fetched from this URL. Plain http only if the API itself is reached so."""
    try:
        parts, base = urlsplit(url), urlsplit(base_url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return False
    # Parsers differ on a host of odd letters: one takes for its end what another takes for its middle.
    if parts.scheme not in ("https", base.scheme) or not _HOST.fullmatch(host) or "@" in parts.netloc:
        return False
    return is_base_host(url, base_url) or any(fnmatchcase(host, glob) for glob in trusted_hosts)


def is_base_host(url: str, base_url: str) -> bool:
    """Say whether a URL names the host of the API, on any port."""
    return (urlsplit(url).hostname or "").lower() == (urlsplit(base_url).hostname or "").lower()


def is_output(url: str, base_url: str, trusted_hosts: Sequence[str]) -> bool:
    """Say whether a text is the address of an output file: on a trusted host, and not of the API itself.

    Plain http counts on the host of the API only: a stand-in for Replicate on this machine has no certificate.
    """
    if len(url) > _LONGEST_URL or _NOT_IN_URLS.search(url) or not is_trusted(url, base_url, trusted_hosts):
        return False
    parts, base = urlsplit(url), urlsplit(base_url)
    if parts.scheme != "https" and not is_base_host(url, base_url):
        return False
    return (parts.scheme, parts.netloc.lower()) != (base.scheme, base.netloc.lower())
