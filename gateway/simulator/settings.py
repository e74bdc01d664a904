"""Settings of a simulator, and constants of the real service."""

from dataclasses import dataclass

from gateway.simulator.faults import Fault

DEFAULT_TOKEN = "r8_simulator00000000000000000000000000000"  # noqa: S105 - made up; only valid for the simulator
DEFAULT_ACCOUNT = "acme"
RETENTION_SECONDS = 3600.0  # data of API predictions is deleted an hour after completion
FILE_LIFE_SECONDS = 86_400.0
MAX_UPLOAD_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Settings of a simulator.

    `speed` divides every simulated wait (boot, model, sync wait, deadline, webhook throttle and retry).
    `stream_idle_seconds` is real time.
    `tokens` lists accepted tokens, as `token` or `token=account`; None accepts any token that starts with `r8_`.
    `public_url` and `delivery_public_url` are used in links, if the listeners have other host names.
    """

    host: str = "127.0.0.1"
    port: int = 0
    delivery_port: int = 0  # 0: `port` + 1, or a free port if `port` is 0
    speed: float = 1.0
    tokens: tuple[str, ...] | None = None
    control: bool = False
    faults: tuple[Fault, ...] = ()
    allow_http_webhooks: bool = False
    creates_per_minute: int = 600
    requests_per_minute: int = 3000
    polls_per_minute: int = 60_000  # GET /predictions/{id} has a separate, high limit
    low_credit: bool = False  # 6 creates a minute with a burst of 1, as with less than $5 of credit
    stream_idle_seconds: float = 30.0
    public_url: str | None = None
    delivery_public_url: str | None = None
    max_predictions: int = 50_000
    max_running: int = 10_000
    max_requests_logged: int = 10_000
    max_body_logged: int = 16_384
    max_file_bytes: int = 1024 * 1024 * 1024
    max_output_bytes: int = 512 * 1024 * 1024
    max_stream_bytes: int = 16 * 1024 * 1024
    webhook_secret: str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - example from Replicate's documentation
    files_signing_secret: str = "simulator-files-signing-secret"  # noqa: S105 - only valid for the simulator
