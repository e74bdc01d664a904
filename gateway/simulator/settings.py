"""What a simulator can be told when it is built, and the numbers that the real service keeps."""

from dataclasses import dataclass

from gateway.simulator.faults import Fault

DEFAULT_TOKEN = "r8_simulator00000000000000000000000000000"  # noqa: S105 - a made-up token that opens only the simulator
DEFAULT_ACCOUNT = "acme"
RETENTION_SECONDS = 3600.0  # predictions made by the API lose their data an hour after completion
FILE_LIFE_SECONDS = 86_400.0
MAX_UPLOAD_BYTES = 100 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """The settings of one simulator.

    `speed` divides every wait of the service itself (boot, model, sync wait, deadline, webhook throttle and retry);
    `stream_idle_seconds` is plain seconds, since it is a matter of the connection.
    `tokens` lists what is accepted, each as `token` or `token=account`; None takes any token that starts with `r8_`.
    `public_url` and `delivery_public_url` are said in links where the listeners are reached under other names.
    """

    host: str = "127.0.0.1"
    port: int = 0
    delivery_port: int = 0  # 0: the port after `port`, or a free one when that is free too
    speed: float = 1.0
    tokens: tuple[str, ...] | None = None
    control: bool = False
    faults: tuple[Fault, ...] = ()
    allow_http_webhooks: bool = False
    creates_per_minute: int = 600
    requests_per_minute: int = 3000
    polls_per_minute: int = 60_000  # GET /predictions/{id} is counted apart and hardly limited
    low_credit: bool = False  # 6 creates a minute, one at a time, as with less than $5 of credit
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
    webhook_secret: str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the documentation's own example
    files_signing_secret: str = "simulator-files-signing-secret"  # noqa: S105 - opens only the simulator
