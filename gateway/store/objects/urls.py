"""Create the output store for an `[outputs] url`."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.outputs.ports import OutputStore
from gateway.store.objects.folder import FolderStore


def open_output_store(url: str) -> OutputStore:
    """Create the output store for a URL, not yet opened. Raise `ValueError` with a message if the URL is not valid."""
    if not url.startswith("s3:"):
        return FolderStore(Path(unquote(urlsplit(url).path) if url.startswith("file:") else url))
    try:
        from gateway.store.objects.bucket import BucketStore  # noqa: PLC0415 - a large, optional dependency
    except ImportError as exc:
        raise ValueError("a bucket needs the extra s3: pip install 'WHEEL[s3]', or '.[s3]' in a checkout") from exc
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return BucketStore(parts.netloc, parts.path.strip("/"), endpoint=query.get("endpoint"), region=query.get("region"))
