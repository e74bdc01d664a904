"""The records of the store: runs, predictions, keys, files.

A *run* is one upstream prediction or training; it costs money, once. A *prediction* is what one caller asked for and
sees. Several predictions may share a run. Every `..._at` is an epoch time in seconds. `document` is the newest body
that upstream gave for the run, byte for byte.
"""

from enum import StrEnum

import msgspec

from gateway.domain.admission_record import Admitted
from gateway.domain.limits import Allowance


class Kind(StrEnum):
    """The two sorts of work that upstream does."""

    PREDICTION = "prediction"
    TRAINING = "training"


LARGE_DOCUMENT = 65_536
"""Bytes of a document that is read from the store only when there is room for it: see `PredictionView.left_out`."""

TERMINAL_RANK = 2
_RANKS = {"starting": 0, "processing": 1}


class Status(StrEnum):
    """Replicate's states (docs/replicate-api.md, States). A status only moves forward, and a terminal one is final."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    ABORTED = "aborted"

    def __init__(self, text: str) -> None:
        self.rank = _RANKS.get(text, TERMINAL_RANK)
        """Order of the statuses. A snapshot whose rank is below the recorded one is outdated."""
        self.is_terminal = self.rank == TERMINAL_RANK
        """Whether nothing comes after this status."""


class RunState(StrEnum):
    """How far the gateway is with a run.

    `intended`: about to be created upstream, or created with the answer not yet recorded. `live`: upstream has it.
    `ended`: its terminal document is recorded.
    """

    INTENDED = "intended"
    LIVE = "live"
    ENDED = "ended"


class Source(StrEnum):
    """How a prediction was answered (docs/architecture.md, Vocabulary)."""

    MISS = "miss"
    JOINED = "joined"
    HIT = "hit"
    BYPASS = "bypass"


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a run's output that is in the output store."""

    place: int
    """Its number among the files of the output, which tickets name."""
    url: str
    """Upstream's address of it, as it stands in the document."""
    content_type: str
    sha256: str
    size: int
    stored_at: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream prediction or training."""

    id: str
    """The gateway's own id of the run; upstream's is not known before it has answered."""
    kind: Kind
    team: str
    """The team that started it, and pays."""
    key_id: str
    target: str
    """As `gateway.domain.targets.Target.name`: `owner/name`, `owner/name:version`, a version id, or a deployment."""
    path: str
    """The upstream route that creates it, below `/v1`."""
    request: bytes
    """The body sent upstream, so that an orphan can be recognised."""
    state: RunState = RunState.INTENDED
    upstream_id: str | None = None
    status: Status = Status.STARTING
    document: bytes = b""
    stream_url: str | None = None
    """Upstream's own stream; never shown to a caller."""
    intended_at: float
    live_at: float | None = None
    ended_at: float | None = None
    cancel_asked_at: float | None = None
    """When upstream was first to be asked to cancel it."""
    data_removed: bool = False
    leader_id: str = ""
    """The prediction that started it: a placeholder's id until upstream's is known, upstream's from then on."""
    fingerprint: str | None = None
    """Identity of the request, sharing scope included; `None` for a run that nobody else may share."""
    provisional: str | None = None
    """Identity without the schema, while a bare version id does not yet name a model (docs/architecture.md, Create)."""
    cache_until: float | None = None
    """Until when later requests may be answered from it, once it has succeeded."""
    uncertain_at: float | None = None
    """Since when it is not known whether upstream took the create."""
    unreadable_since: float | None = None
    """Since when upstream's answers about it cannot be read; `None` after a readable one."""
    copies: tuple[Copy, ...] = ()
    """The files of its output that the output store has, by place."""
    owner: int = 0
    """The number of the node that follows it; 0 for nobody, and always where one process serves from the store."""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller asked for and sees. Trainings are kept as predictions of their kind."""

    id: str
    run_id: str
    kind: Kind
    team: str
    key_id: str
    user: str | None = None
    owner: str | None = None
    """Who made it, for web pages, which see only their own: see `gateway.domain.teams.Caller.owner`."""
    source: Source
    created_at: float
    ticket: str
    """SHA-256 (hex) of the stream ticket; empty if the ticket contains the prediction's id (`domain.tickets`)."""
    ticket_expires_at: float
    ticket_origins: tuple[str, ...] | None = None
    """Set if a key for pages created it: the ticket then opens the stream to these origins only."""
    webhook: str | None = None
    webhook_events_filter: tuple[str, ...] | None = None
    deadline_at: float | None = None
    canceled_at: float | None = None
    """When it ended for its caller by a cancel or its deadline, whatever the run does."""
    final_status: Status = Status.CANCELED
    """The status it then got: `canceled`, or `aborted` if its deadline passed before the run had started."""
    reason: str = ""
    """Why it may be shared (`sharing.rules.determinism.Proof`) or not (`domain.bypass.BypassReason`); empty if not
    recorded."""
    admitted: Admitted | None = None
    """How its run was admitted, if this prediction started it."""
    tags: str = ""
    """Its cost tags, as `gateway.domain.tags` writes them."""
    request_id: str = ""
    """The `X-Request-Id` of the create; empty if not recorded."""


class PredictionView(msgspec.Struct, frozen=True):
    """A prediction together with its run: what is needed to show it."""

    prediction: Prediction
    run: Run
    left_out: int = 0
    """Bytes of the run's document and request, if they are large and were left in the store. The run then has neither:
    read the prediction again where there is room for them."""

    @property
    def size(self) -> int:
        """Bytes of the run's document and request, wherever they are."""
        return self.left_out or len(self.run.document) + len(self.run.request)

    def without_document(self) -> "PredictionView":
        """Return the view without the run's document, for what is kept while a response is in progress."""
        run = msgspec.structs.replace(self.run, document=b"", request=b"")
        return PredictionView(self.prediction, run, self.size)

    def with_run(self, run: Run) -> "PredictionView":
        """Return the view with another state of its run, which may have been read without its document too."""
        return PredictionView(self.prediction, run, 0 if run.document else self.left_out)


class Cancellation(msgspec.Struct, frozen=True):
    """What a caller's cancel did, as one atomic step decided it."""

    view: PredictionView
    """The prediction and run as they are after the step."""
    changed: bool
    """Whether this call ended the prediction; false if it or its run had ended before."""
    is_last: bool
    """Whether nobody else waited for the run: this call has to ask upstream to cancel it."""


class CacheStats(msgspec.Struct, frozen=True):
    """What is kept for later requests. Sizes in bytes of documents."""

    entries: int
    bytes: int
    oldest_ended_at: float | None


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A credential issued to a team. Only a digest of it is kept. `None`: no restriction."""

    id: str
    team: str
    name: str
    sha256: str
    """Hex digest of the whole key as the caller sends it."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    scopes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None
    allowance: Allowance | None = None
    """Limits of its own, in addition to the team's."""
    last_four: str | None = None
    """The last four characters of the secret, to recognise the key by."""
    created_by: str | None = None
    """Who created it, as in the audit log; `None` if that is not known."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a team uploaded. Several can refer to one upstream file, because equal bytes are uploaded once."""

    id: str
    """Upstream's for the first of its bytes, the gateway's own for those after it."""
    team: str
    key_id: str
    owner: str | None = None
    """Who uploaded it, as in `Prediction`."""
    sha256: str
    size: int
    created_at: float
    expires_at: float
    upstream_id: str
    document: bytes
    """The body to show; upstream's answer to the upload for the first of its bytes."""


class Page(msgspec.Struct, frozen=True):
    """A page of a list, newest first, and whether there are newer and older items."""

    items: list[PredictionView] | list[File]
    has_newer: bool
    has_older: bool
