"""Links of stored outputs in inputs of creates (docs/architecture.md, Files and outputs).

A ticket is a permission, so a link that is a text of its own does not go upstream. It is replaced by upstream's own
link while that lives; afterwards the stored bytes are uploaded as a file of the caller's team. The input counts by the
content of the file, so every link to it, an upload and a data: URI are equal. Links within longer texts, and in keys of
objects, are not replaced.

Whoever has a ticket can read the file. So any ticket of the caller's team is accepted, and links are recognised on
every host: a ticket proves itself.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial

from gateway.domain import file_content, input_paths, tickets
from gateway.domain import links as rewrite
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import LinkedOutput
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Copy, PredictionView
from gateway.domain.teams import Caller
from gateway.domain.tickets import OutputTicket
from gateway.errors import OutputLost, Unprocessable, UpstreamUnavailable
from gateway.files.rules.uploads import Described
from gateway.files.uploads import Upload, UploadService
from gateway.outputs.ports import OutputStore
from gateway.outputs.rules import input_links, outputs
from gateway.predictions.ports.outputs import StoredFileRefused
from gateway.runtime.pauses import LARGE, off_the_loop
from gateway.runtime.tasks import Tasks
from gateway.sharing.rules import caching

MAX_LINKS = 250
"""Links of stored outputs in one input: as many as one output has files. Each is looked up in the store."""
_GONE = "this file does not exist or its link has expired"


class OutputInputs:
    """Finds stored outputs in inputs, and gives upstream a link to them."""

    def __init__(
        self,
        find: Callable[[str], Awaitable[PredictionView | None]],
        uploads: UploadService,
        clock: Clock,
        *,
        store: OutputStore | None,
        secret: bytes,
        ttl_seconds: float,
        upstream_base: str,
    ) -> None:
        """Take `find`, which finds a prediction by its id, and `store`, `None` if no output is stored."""
        self._find = find
        self._uploads = uploads
        self._clock = clock
        self._store = store
        self._secret = secret
        self._ttl_seconds = ttl_seconds
        self._upstream_base = upstream_base
        self._tasks = Tasks()

    async def linked(self, caller: Caller, body: CreateBody, own_origins: frozenset[str]) -> Mapping[str, LinkedOutput]:
        """Find the links of stored outputs in an input. Raise `Unprocessable` for one that gives no access."""
        found: dict[str, LinkedOutput] = {}
        looked_up = 0
        find = partial(_addresses_in, body.input)
        for text in find() if len(body.input) <= LARGE else await off_the_loop(body.input, find):
            link = input_links.parse(text)
            if link is None:
                continue
            is_own, output = link.is_on(own_origins), None
            if (parsed := link.parsed) is not None:
                looked_up += 1
                if looked_up > MAX_LINKS:
                    raise Unprocessable.field("input", f"input has more than {MAX_LINKS} links of stored outputs")
                view = await self._find(parsed.prediction_id)
                if view is not None:
                    is_own, output = True, self._output(caller, view, parsed, link.name)
            if output is not None:
                found[text] = output
            elif is_own:
                raise Unprocessable.field(input_paths.path_in(body.input, text), _GONE, "not_found")
        return found

    def _output(self, caller: Caller, view: PredictionView, ticket: OutputTicket, name: str) -> LinkedOutput | None:
        """Return the stored file that a ticket gives access to; `None` if it gives none to the caller's team."""
        prediction, run = view.prediction, view.run
        if self._store is None or prediction.canceled_at is not None or not caller.owns(prediction.team):
            return None
        copy = next((copy for copy in run.copies if copy.place == ticket.place), None)
        if copy is None or not tickets.proves(ticket, self._secret, copy.sha256) or name != outputs.name_of(copy.url):
            return None
        if not outputs.is_alive(copy, self._clock.now(), self._ttl_seconds):
            return None
        content = file_content.of_file(copy.sha256, copy.content_type, name)
        return LinkedOutput(copy, content, (run.ended_at or 0.0) + caching.LINKS_LIVE_SECONDS)

    async def upstream_link(self, caller: Caller, output: LinkedOutput) -> str:
        """Return a link of upstream's to a stored file: the original one while it lives, else of an upload."""
        if self._clock.now() < output.upstream_until:
            return output.copy.url
        key = (caller.team.name, caller.owner, output.content)
        upstream_id = await self._tasks.single_flight(
            key, partial(self._send, caller, output), "upload a stored output"
        )
        return f"{self._upstream_base}/files/{upstream_id}"

    async def _send(self, caller: Caller, output: LinkedOutput) -> str:
        """Upload the stored bytes, unless upstream has them as a file of the team. Return upstream's id of the file."""
        assert self._store is not None
        form = _Form(output.copy)
        if (known := await self._uploads.find(caller.team.name, output.copy.sha256, form.described)) is not None:
            return known.upstream_id
        try:
            async with self._store.read(output.copy.sha256, output.copy.size) as stored:
                chunks = form.chunks(stored.blocks(0, output.copy.size))
                file, answer = await self._uploads.upload(caller, form.upload(chunks))
        except OutputLost as exc:
            raise StoredFileRefused(_GONE) from exc
        if file is not None:
            return file.upstream_id
        if answer.status == 429 or answer.status >= 500:
            raise UpstreamUnavailable("Replicate did not accept a stored file of the input.", retry_after=1)
        raise StoredFileRefused(f"the stored file cannot be uploaded: Replicate answered {answer.status}")

    async def close(self) -> None:
        """Wait for uploads in progress."""
        await self._tasks.close()


class _Form:
    """A stored file as a multipart form (docs/replicate-api.md, Files)."""

    def __init__(self, copy: Copy) -> None:
        self._copy = copy
        self._name = outputs.name_of(copy.url)
        self._type = outputs.content_type(copy.content_type)
        self.described = Described(self._name, self._type, b"{}")
        boundary = secrets.token_hex(16)
        self._media_type = f"multipart/form-data; boundary={boundary}"
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="content"; filename="{self._name}"\r\n'
            f"Content-Type: {self._type}\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()

    async def chunks(self, blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the form."""
        yield self._head
        async for block in blocks:
            yield block
        yield self._tail

    def upload(self, chunks: AsyncIterator[bytes]) -> Upload:
        """Return the upload of the form."""
        length = len(self._head) + self._copy.size + len(self._tail)
        return Upload(
            chunks=chunks,
            content_type=self._media_type,
            measured=lambda: (self._copy.sha256, self._copy.size),
            described=lambda: self.described,
            length=length,
            max_length=length,
        )


def _addresses_in(given: bytes) -> dict[str, None]:
    return dict.fromkeys(rewrite.addresses(given))
