"""What a caller may run, and which files may go into it: checked before anything else is asked or spent."""

import msgspec

from gateway.domain import links as rewrite
from gateway.domain.create_body import CreateBody
from gateway.domain.links import FileLink
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Files
from gateway.domain.scopes import Scope
from gateway.domain.targets import Target
from gateway.domain.teams import Caller
from gateway.errors import Forbidden, Unprocessable
from gateway.models.versions import VersionMap


class Policy:
    """Decides on targets and on the files of inputs."""

    def __init__(self, versions: VersionMap, files: Files, clock: Clock, upstream_base: str) -> None:
        self._versions = versions
        self._files = files
        self._clock = clock
        self._upstream_base = upstream_base

    async def check_target(self, caller: Caller, target: Target) -> None:
        """Raise `Forbidden` unless every allow-list of the caller has the target on it."""
        if caller.may_run_anything:
            return
        model = target.model
        if target.version is not None and target.kind == "version":
            # An id belongs to one model; the name written before it proves nothing.
            model = await self._versions.resolve(target.version, [*_named(target), *caller.named_models()])
        if model is None:
            raise Forbidden(
                "The model of this version is not known to the gateway, and your key may not run every model. "
                "Name it as owner/name:version, or read the model's versions once.",
                title="Target not allowed",
            )
        if not caller.may_run(model):
            raise Forbidden(f"Your key may not run {model}.", title="Target not allowed")

    def check_model(self, caller: Caller, model: str) -> None:
        """Raise `Forbidden` unless the caller may run, and so change, `owner/name`."""
        if not caller.may_run(model):
            raise Forbidden(f"Your key may not use {model}.", title="Target not allowed")

    async def translate_files(
        self, caller: Caller, body: CreateBody, own_origins: frozenset[str]
    ) -> tuple[CreateBody, dict[str, str]]:
        """Turn links of the team's files back into upstream's, at any depth of the input.

        `own_origins` are the gateway's own, as callers spell them. A link to a file on one of them, or on upstream,
        that is not the team's is refused: upstream would read it with the account's rights. Raise `Unprocessable`
        naming the path. Return with the body what its links of known files lead to, as hex SHA-256 by URL.
        """
        links = rewrite.file_links(body.input)
        if not links:
            return body, {}
        known = {file.id: file for file in await self._files.files_among([link.file_id for link in links])}
        replacements: dict[str, str] = {}
        contents: dict[str, str] = {}
        guarded = own_origins if caller.may(Scope.ACCOUNT) else own_origins | {self._upstream_base}
        for link in links:
            file = known.get(link.file_id)
            if file is not None and caller.owns(file.team):
                url = replacements[link.url] = f"{self._upstream_base}/files/{file.upstream_id}"
                contents[url] = file.sha256
            elif rewrite.is_among(link, guarded):
                raise Unprocessable.field(_place(body.input, link), "this file does not exist", "not_found")
        return msgspec.structs.replace(body, input=rewrite.translate(body.input, replacements)), contents


def _place(given: bytes, link: FileLink) -> str:
    """Name the path of a link in an input, or the input where that cannot be read as a whole."""
    try:
        return rewrite.path_of(msgspec.json.decode(given), link.url)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "input"


def _named(target: Target) -> list[str]:
    return [target.model] if target.model else []
