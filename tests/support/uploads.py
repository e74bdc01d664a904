"""Upload and download files through a gateway."""

from urllib.parse import quote

from gateway.simulator.files import sign_download
from tests.support.http_calls import Reply, ask
from tests.support.samples import FORM
from tests.support.stack import Stack


async def post_file(stack: Stack, data: bytes, *, key: str = "alpha", **headers: str) -> Reply:
    """Upload a form."""
    return await ask(stack, "POST", "/v1/files", key=key, data=data, headers={"Content-Type": FORM, **headers})


def signed_query(stack: Stack, file_id: str) -> str:
    """Return the query of a download URL, signed as upstream's owner of the file would sign it."""
    expiry = int(stack.upstream.clock.now()) + 600
    owner = stack.upstream.world.accounts.authenticate(f"Bearer {stack.upstream.token}")
    signature = sign_download(stack.upstream.settings.files_signing_secret, owner, file_id, expiry)
    return f"owner={owner}&expiry={expiry}&signature={quote(signature, safe='')}"


async def download(stack: Stack, file_id: str, key: str = "alpha") -> Reply:
    """Download a file by a signed URL."""
    return await ask(stack, "GET", f"/v1/files/{file_id}/download?{signed_query(stack, file_id)}", key=key)
