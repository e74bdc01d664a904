"""Check which targets a caller can run and which files it can use, before any other work for the request."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from gateway.domain import links as rewrite
from gateway.domain.create_body import CreateBody
from gateway.domain.file_content import FileContent
from gateway.domain.links import FileLink
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Files
from gateway.domain.scopes import Scope
from gateway.domain.targets import Target
from gateway.domain.teams import Caller
from gateway.errors import Forbidden, Unprocessable
from gateway.files.rules.uploads import content_of
from gateway.models.versions import VersionMap
from gateway.runtime.pauses import LARGE, off_the_loop

_RECORDS_AT_ONCE = 20


class _KnownFile(NamedTuple):
    """Of a file in an input."""

    team: str
    owner: str | None
    upstream_id: str
    content: FileContent


class Policy:
    """Checks targets, and the files in inputs."""

    def __init__(self, versions: VersionMap, files: Files, clock: Clock, upstream_base: str) -> None:
        self._versions = versions
        self._files = files
        self._clock = clock
        self._upstream_base = upstream_base

    async def check_target(self, caller: Caller, target: Target) -> None:
        """Raise `Forbidden` unless every allow-list of the caller contains the target."""
        if caller.may_run_anything:
            return
        model = target.model
        if target.version is not None and target.kind == "version":
            # A version id belongs to one model. The name that a caller writes before the id can be wrong.
            model = await self._versions.resolve(target.version, [*_named(target), *caller.named_models()])
        if model is None:
            raise Forbidden(
                "The gateway does not know which model this version belongs to, and your key cannot run every model. "
                "Write it as owner/name:version, or list the model's versions once through the gateway.",
                title="Target not allowed",
            )
        if not caller.may_run(model):
            raise Forbidden(f"Your key is not allowed to run {model}.", title="Target not allowed")

    def check_model(self, caller: Caller, model: str) -> None:
        """Raise `Forbidden` unless the caller can run `owner/name`, and so can change it."""
        if not caller.may_run(model):
            raise Forbidden(f"Your key is not allowed to use {model}.", title="Target not allowed")

    async def translate_files(
        self, caller: Caller, body: CreateBody, own_origins: frozenset[str]
    ) -> tuple[CreateBody, dict[str, FileContent]]:
        """Replace the gateway's links to the team's files by upstream's, at any depth of the input.

        `own_origins` are the origins by which callers reach the gateway. A file link on one of them, or on upstream,
        that does not belong to the team raises `Unprocessable` with the path in the input: upstream would read the file
        with the account's rights. Return the new body, and the content of each linked file by its upstream URL.
        """
        find = partial(rewrite.file_links, body.input)
        links = find() if len(body.input) <= LARGE else await off_the_loop(body.input, find)
        if not links:
            return body, {}
        known = await self._known([link.file_id for link in links])
        replacements: dict[str, str] = {}
        contents: dict[str, FileContent] = {}
        guarded = rewrite.hosts_of(own_origins if caller.may(Scope.ACCOUNT) else own_origins | {self._upstream_base})
        for link in links:
            file = known.get(link.file_id)
            if file is not None and caller.may_see(file.team, file.owner):
                url = replacements[link.url] = f"{self._upstream_base}/files/{file.upstream_id}"
                contents[url] = file.content
            elif caller.may(Scope.ACCOUNT) and link.file_id and rewrite.is_among(link, own_origins):
                # Upstream's lists, which these callers see, link to files that the gateway has no record of.
                replacements[link.url] = f"{self._upstream_base}/files/{link.file_id}"
            elif rewrite.is_on(link, guarded):
                raise Unprocessable.field(_path(body.input, link), "this file does not exist", "not_found")
        return msgspec.structs.replace(body, input=rewrite.translate(body.input, replacements)), contents

    async def _known(self, ids: Sequence[str]) -> dict[str, "_KnownFile"]:
        """Return what is needed of the files with these ids. Records are read in parts: each can have 1 MiB."""
        found, ids = {}, list(dict.fromkeys(ids))
        for at in range(0, len(ids), _RECORDS_AT_ONCE):
            for file in await self._files.files_among(ids[at : at + _RECORDS_AT_ONCE]):
                found[file.id] = _KnownFile(file.team, file.owner, file.upstream_id, content_of(file))
        return found


def _path(given: bytes, link: FileLink) -> str:
    """Return the path of a link in an input; `input` if the input cannot be decoded."""
    try:
        return rewrite.path_of(msgspec.json.decode(given), link.url)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "input"


def _named(target: Target) -> list[str]:
    return [target.model] if target.model else []
