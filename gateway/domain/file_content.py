"""The content of a file as a model sees it: its bytes, its media type and the extension of its name.

Models decide by media type and extension how to read a file, so equal bytes alone do not make two inputs equal. A data:
URI has no name. Cog gives its file an extension by the media type, and so does `of_data_uri`.
"""

import posixpath

import msgspec
from msgspec import Raw

OCTETS = "application/octet-stream"
PLAIN_TEXT = "text/plain"
"""Media type of a data: URI that states none (RFC 2397)."""

# Python's `mimetypes.guess_extension`, which Cog uses, written out: the module reads files of the system, and its table
# changes with the version of Python. Types that it may lack (audio/wav, image/webp) have their usual extension.
_EXTENSIONS = {
    "application/gzip": ".gz",
    "application/javascript": ".js",
    "application/json": ".json",
    "application/octet-stream": ".bin",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/x-tar": ".tar",
    "application/xml": ".xml",
    "application/zip": ".zip",
    "audio/aac": ".aac",
    "audio/flac": ".flac",
    "audio/mp4": ".m4a",
    "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg",
    "audio/wav": ".wav",
    "audio/wave": ".wav",
    "audio/webm": ".webm",
    "audio/x-aiff": ".aiff",
    "audio/x-wav": ".wav",
    "font/ttf": ".ttf",
    "image/avif": ".avif",
    "image/bmp": ".bmp",
    "image/gif": ".gif",
    "image/heic": ".heic",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/svg+xml": ".svg",
    "image/tiff": ".tiff",
    "image/webp": ".webp",
    "model/gltf-binary": ".glb",
    "model/obj": ".obj",
    "text/css": ".css",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "text/xml": ".xml",
    "video/mp4": ".mp4",
    "video/mpeg": ".mpeg",
    "video/ogg": ".ogv",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
}
_LONGEST_TYPE = 255
_LONGEST_NAME = 4096

_encode = msgspec.json.Encoder().encode


class FileContent(msgspec.Struct, frozen=True):
    """What makes two files equal inputs."""

    sha256: str
    """Hex digest of the bytes."""
    media_type: str = OCTETS
    """Type and subtype in lower case, without parameters."""
    extension: str = ""
    """Of the file's name, in lower case with its dot; empty if the name has none."""

    @property
    def token(self) -> Raw:
        """Its form in a canonical input, which no value of JSON can have: `file:[sha256, type, extension]`."""
        return Raw(b"file:" + _encode((self.sha256, self.media_type, self.extension)))


def of_data_uri(sha256: str, media_type: str) -> FileContent:
    """Return the content of a data: URI, from the digest of its bytes and the media type that it states."""
    known = type_of(media_type, PLAIN_TEXT)
    return FileContent(sha256.lower(), known, _EXTENSIONS.get(known, ""))


def of_file(sha256: str, media_type: str, name: str) -> FileContent:
    """Return the content of a named file, such as an upload."""
    return FileContent(sha256.lower(), type_of(media_type, OCTETS), extension_of(name))


def type_of(media_type: str, otherwise: str) -> str:
    """Return a media type's type and subtype in lower case, or `otherwise` if there is none."""
    return media_type[:_LONGEST_TYPE].partition(";")[0].strip().lower() or otherwise


def extension_of(name: str) -> str:
    """Return the extension of a file's name in lower case, with its dot."""
    return posixpath.splitext(name[-_LONGEST_NAME:])[1].lower()
