"""Bodies of upstream's responses, read within bounds and searched for secrets."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from io import BytesIO

import aiohttp

from gateway.domain import json_scan
from gateway.errors import UpstreamTooLarge, UpstreamUnreadable

WITHHELD = "Replicate's response contained the gateway's own credentials and was withheld."

_SEARCHED_AT_ONCE = 1024 * 1024
_LONGEST_ESCAPE = 18
"""Bytes of a percent-encoded letter in JSON escapes."""
_LARGE = 1024 * 1024
_LARGE_AT_A_TIME = 4
"""Bodies above `_LARGE` that are read at a time, so that many do not fill the memory together."""


class BodyReader:
    """Reads bodies of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)

    async def read(self, response: aiohttp.ClientResponse, secrets: Sequence[bytes]) -> tuple[bytes, bool]:
        """Read a body. Return it, and whether it contains one of the secrets (`json_scan.holds`).

        A large body is searched as it comes, so that there is no long search at the end. Raise `UpstreamTooLarge`
        if it is too large.
        """
        content = response.content
        if content.is_eof() and content.total_bytes <= min(_SEARCHED_AT_ONCE, self._max_bytes):
            # Most bodies arrive with their head: there is nothing to wait for.
            whole = content.read_nowait()
            return whole, json_scan.holds(whole, secrets)
        overlap = _LONGEST_ESCAPE * max(map(len, secrets))
        # Grows in place: to join 40 MB at the end would hold up everybody for 20 ms and more.
        body = BytesIO()
        chunks: list[bytes] = []
        size, searched, has_secret, is_large = 0, 0, False, False
        try:
            async for chunk in content.iter_any():
                size += len(chunk)
                if size > self._max_bytes:
                    raise UpstreamTooLarge("Replicate's response is larger than the gateway accepts.")
                chunks.append(chunk)
                if size > _LARGE and not is_large:
                    # The others wait, unread, in the sockets' buffers.
                    await self._large.acquire()
                    is_large = True
                if size - searched > _SEARCHED_AT_ONCE:
                    part = b"".join(chunks)
                    has_secret = has_secret or json_scan.holds(part, secrets)
                    body.write(part[:-overlap])
                    chunks, searched = [part[-overlap:]], size
            part = b"".join(chunks)
            body.write(part)
            return body.getvalue(), has_secret or json_scan.holds(part, secrets)
        finally:
            if is_large:
                self._large.release()


async def without(chunks: AsyncIterator[bytes], secrets: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Pass on a body as it comes. Raise `UpstreamUnreadable` instead of a part that contains one of the secrets."""
    overlap = _LONGEST_ESCAPE * max(map(len, secrets))
    held = b""
    async for chunk in chunks:
        part = held + chunk
        if json_scan.holds(part, secrets):
            raise UpstreamUnreadable(WITHHELD)
        held = part[-overlap:]
        if len(part) > overlap:
            yield part[:-overlap]
    if held:
        yield held
