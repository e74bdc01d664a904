"""Input files of a model: data URIs, uploads of the account, hosted outputs, and other URLs."""

import base64
import binascii
from urllib.parse import unquote_to_bytes, urlsplit

import aiohttp

from gateway.simulator.models.job import ModelError
from gateway.simulator.services import Services

_LARGEST_BYTES = 100 * 1024 * 1024
_TIMEOUT_SECONDS = 10.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class Reader:
    """Reads files for an account. Uploads and outputs are read from the stores directly."""

    __slots__ = ("_account", "_services")

    def __init__(self, services: Services, account: str) -> None:
        self._services = services
        self._account = account

    async def read(self, url: str) -> bytes:
        """Return the content of a URL. Raise `ModelError`, with the text of a Python model, if it cannot be read."""
        if url.startswith("data:"):
            return decode_data_uri(url)
        links = self._services.links
        if (path := _path_under(url, links.api)) is not None:
            file = self._services.files.get(self._account, path.removeprefix("/files/"))
            if not path.startswith("/files/") or file is None:
                raise ModelError(f"404 Client Error: Not Found for url: {url}")
            return file.data
        if (path := _path_under(url, links.delivery)) is not None:
            output = self._services.outputs.get(path)
            if output is None:
                raise ModelError(f"404 Client Error: Not Found for url: {url}")
            return output.data
        return await _download(url)


def decode_data_uri(url: str) -> bytes:
    """Decode a data URI. Raise `ModelError` if it is invalid."""
    head, comma, payload = url.partition(",")
    if not comma:
        raise ModelError("Invalid data URI")
    if head.endswith(";base64"):
        try:
            return base64.b64decode(unquote_to_bytes(payload), validate=False)
        except binascii.Error as error:
            raise ModelError(f"Invalid data URI: {error}") from error
    return unquote_to_bytes(payload)


def _path_under(url: str, base: str) -> str | None:
    """Return the path of `url` below `base`, or None if it is elsewhere. Loopback host names are equivalent."""
    there, here = urlsplit(url), urlsplit(base)
    if there.port != here.port or not there.path.startswith(here.path + "/"):
        return None
    hosts = {there.hostname, here.hostname}
    return there.path.removeprefix(here.path) if len(hosts) == 1 or hosts <= _LOOPBACK else None


async def _download(url: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise ModelError(f"Invalid URL {url[:200]!r}")
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            if response.status >= 400:
                raise ModelError(f"{response.status} Client Error: {response.reason} for url: {url}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(65_536):
                data += chunk
                if len(data) > _LARGEST_BYTES:
                    raise ModelError(f"{url} is larger than {_LARGEST_BYTES} bytes")
            return bytes(data)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ModelError(f"Failed to fetch {url}: {type(error).__name__}") from error
