"""Built-in models, deployments, collections and hardware. Their ids are the same in every run."""

from typing import Any

from gateway.simulator import ids
from gateway.simulator.catalog import Collection, Deployment, Model, Version
from gateway.simulator.models import image, small, text, upscale
from gateway.simulator.models.job import Program
from gateway.simulator.times import parse_time

HARDWARE = (
    ("cpu", "CPU"),
    ("gpu-t4", "Nvidia T4 GPU"),
    ("gpu-l40s", "Nvidia L40S GPU"),
    ("gpu-l40s-2x", "2x Nvidia L40S GPU"),
    ("gpu-a40-small", "Nvidia A40 GPU"),
    ("gpu-a40-large", "Nvidia A40 (Large) GPU"),
    ("gpu-a100-large", "Nvidia A100 (80GB) GPU"),
    ("gpu-a100-large-2x", "2x Nvidia A100 (80GB) GPU"),
    ("gpu-h100", "Nvidia H100 GPU"),
)

COLLECTIONS = (
    Collection(
        "text-to-image",
        "Text to image",
        "Models that generate images from text prompts",
        "# Text to image\n",
        (
            "black-forest-labs/flux-schnell",
            "stability-ai/sdxl",
            "acme/painter",
        ),
    ),
    Collection(
        "language-models",
        "Language models",
        "Models that can understand and generate text",
        "# Language models\n",
        (
            "meta/meta-llama-3-8b-instruct",
            "meta/llama-2-70b-chat",
            "acme/storyteller",
        ),
    ),
    Collection(
        "streaming-language-models",
        "Streaming language models",
        "Language models that support streaming responses",
        None,
        (
            "meta/meta-llama-3-8b-instruct",
            "acme/storyteller",
        ),
    ),
    Collection(
        "super-resolution",
        "Super resolution",
        "Upscaling models that create high-quality images",
        None,
        ("acme/upscale",),
    ),
    Collection(
        "testing",
        "Testing",
        "Models that fail, dawdle or do little",
        None,
        (
            "acme/fail",
            "acme/slow",
            "acme/frames",
            "acme/analyze",
            "replicate/hello-world",
        ),
    ),
)

PAGES = (
    ("HTTP API", "/docs/reference/http"),
    ("Streaming output", "/docs/topics/predictions/streaming"),
    ("Official models", "/docs/topics/models/official-models"),
    ("Webhooks", "/docs/topics/webhooks"),
)

_HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
_SDXL = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
_LLAMA_2 = "02e509c789964a7ea8736978a43525956ef40397be9033abf9fd2badfe68c9e3"
_COVER = "https://tjzk.replicate.delivery/models_models_cover_image/00000000-0000-4000-8000-000000000000/cover.png"
_OUTPUT = "https://replicate.delivery/pbxt/simulatedexampleoutput0000000000000000000000/out-0.png"
_TOKENS = [
    "\n\n",
    "Here is",
    " a verse",
    " about",
    " llamas",
    ":\n\n",
    " a paper boat",
    " keeps",
    " the snow",
    ".\n",
    "",
]


def built_in_models() -> list[Model]:
    """Create the built-in models."""
    writer, painter = text.program(), image.sized_program()
    llama = text.program(limit=8192)
    return [
        _model(
            "acme/storyteller",
            "Streams a few lines of text, token by token",
            "2024-01-10",
            writer,
            versions=2,
            tags=("text-generation", "streaming"),
            example=({"prompt": "Write about llamas"}, _TOKENS),
        ),
        _model(
            "acme/painter",
            "Paints a picture from prompt and seed",
            "2024-01-11",
            painter,
            versions=2,
            tags=("text-to-image",),
            example=({"prompt": "a quiet lake", "seed": 1}, [_OUTPUT]),
        ),
        _model(
            "acme/upscale",
            "Makes a picture larger",
            "2024-01-12",
            upscale.program(),
            tags=("super-resolution",),
            example=({"image": _OUTPUT, "scale": 2}, _OUTPUT),
        ),
        _model(
            "acme/frames",
            "Gives files one after the other, as a stream",
            "2024-01-13",
            small.frames(),
            tags=("text-to-video",),
        ),
        _model("acme/fail", "Fails, in the way that the input says", "2024-01-14", small.failing()),
        _model("acme/slow", "Takes `duration` seconds and writes logs", "2024-01-15", small.slow()),
        _model("acme/analyze", "Counts words, and returns an object", "2024-01-16", small.analyze()),
        _model("acme/signer", "Signs a text with a secret token", "2024-01-16", small.signer()),
        _model(
            "acme/official-storyteller",
            "The text model as an official one: its version is hidden",
            "2024-01-17",
            writer,
            official=True,
            tags=("text-generation", "streaming"),
        ),
        _model(
            "black-forest-labs/flux-schnell",
            "The fastest image generation model for local development",
            "2024-07-30",
            image.ratio_program(),
            official=True,
            tags=("text-to-image",),
            runs=400_000_000,
            example=({"prompt": "a quiet lake", "aspect_ratio": "1:1"}, [_OUTPUT]),
        ),
        _model(
            "meta/meta-llama-3-8b-instruct",
            "An 8 billion parameter language model from Meta, for chat completions",
            "2024-04-17",
            llama,
            official=True,
            tags=("text-generation", "streaming"),
            runs=300_000_000,
            example=({"prompt": "Write about llamas"}, _TOKENS),
        ),
        _model(
            "meta/llama-2-70b-chat",
            "A 70 billion parameter language model from Meta, for chat completions",
            "2023-07-20",
            llama,
            official=True,
            tags=("text-generation",),
            runs=1_847_452,
            version_ids=(_LLAMA_2,),
            cog="0.8.1",
            example=({"prompt": "Write about llamas"}, _TOKENS),
        ),
        _model(
            "stability-ai/sdxl",
            "A text-to-image generative AI model that creates beautiful images",
            "2023-07-26",
            image.sdxl_program(),
            tags=("text-to-image",),
            runs=19_361_490,
            version_ids=(_SDXL,),
            cog="0.8.6",
            example=({"prompt": "An astronaut riding a rainbow unicorn", "width": 768, "height": 768}, [_OUTPUT]),
        ),
        _model(
            "replicate/hello-world",
            "A tiny model that says hello",
            "2022-04-26",
            small.hello(),
            version_ids=(_HELLO,),
            cog="0.0.1",
            example=({"text": "Alice"}, "hello Alice"),
        ),
        Model("mattt", "empty", _us("2023-01-01"), description=None),
    ]


def built_in_deployments() -> list[Deployment]:
    """Create the built-in deployments."""
    writer, painter = ids.version_id("acme/storyteller 2"), ids.version_id("acme/painter 2")
    return [
        Deployment("acme", "story-service", "acme/storyteller", writer, "cpu", 0, 5, _us("2024-02-01")),
        Deployment("acme", "paint-service", "acme/painter", painter, "gpu-t4", 1, 2, _us("2024-02-02")),
    ]


def _model(
    ref: str,
    description: str,
    created: str,
    program: Program,
    *,
    versions: int = 1,
    version_ids: tuple[str, ...] = (),
    official: bool = False,
    tags: tuple[str, ...] = (),
    runs: int = 1000,
    cog: str = "0.16.9",
    example: tuple[dict[str, Any], Any] | None = None,
) -> Model:
    owner, name = ref.split("/")
    created_us = _us(created)
    made = version_ids or tuple(ids.version_id(f"{ref} {number + 1}") for number in range(versions))
    return Model(
        owner,
        name,
        created_us,
        description=description,
        official=official,
        github_url=f"https://github.com/{owner}/{name}",
        license_url=f"https://github.com/{owner}/{name}/blob/main/LICENSE",
        cover_image_url=_COVER,
        readme=f"# {name}\n\n{description}.\n",
        run_count=runs,
        tags=tags,
        example=example,
        versions=[Version(each, created_us + 86_400_000_000 * (n + 1), program, cog) for n, each in enumerate(made)],
    )


def _us(date: str) -> int:
    # Real timestamps have microseconds.
    return parse_time(date) + 203_903
