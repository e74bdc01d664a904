"""Small models: a greeting, a failing one, a slow one, one that streams files, one that returns objects."""

import asyncio
import hashlib
from typing import Any

from gateway.simulator.models import schema
from gateway.simulator.models.image import paint
from gateway.simulator.models.job import Job, ModelError, Program, choose_seed

FAILURES = {
    "exception": "division by zero",
    "nsfw": "NSFW content detected. Try running it again, or try a different prompt.",
    "out_of_memory": "CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 14.76 GiB total capacity)",
    "interrupted": "Prediction interrupted; please retry (code: PA)",
    "director": "Director: unexpected error handling prediction (E9828)",
    "timed_out": "Prediction timed out",
}
_TRACEBACK = """Traceback (most recent call last):
  File "predict.py", line 31, in predict
    return 1 / 0
ZeroDivisionError: division by zero
"""


def hello() -> Program:
    """Create replicate/hello-world."""

    async def run(job: Job) -> None:
        await job.wait(0.01)
        job.give(f"hello {job.input['text']}")

    fields = {"text": schema.field("string", "Text to prefix with 'hello '", required=True)}
    return Program(run, schema.model_schema(fields, schema.TEXT), boot_seconds=0.05)


def failing() -> Program:
    """Create a model that streams a little and then fails."""

    async def run(job: Job) -> None:
        kind = str(job.input["kind"])
        for word in ("Let", " me", " see"):
            await job.wait(float(job.input["after"]) / 3)
            job.emit(word)
        if kind == "exception":
            job.log(_TRACEBACK)
        raise ModelError(FAILURES[kind])

    fields = {
        "prompt": schema.field("string", "Anything; it will not help", default=""),
        "kind": schema.field("string", "How to fail", enum=list(FAILURES), default="exception"),
        "after": schema.field("number", "Seconds until it fails", default=0.3, minimum=0, maximum=3600),
        "seed": schema.seed_field(),
    }
    return Program(run, schema.model_schema(fields, schema.TEXT_STREAM))


def slow() -> Program:
    """Create a slow model that logs its progress."""

    async def run(job: Job) -> None:
        steps = int(job.input["steps"])
        seed = choose_seed(job)
        for step in range(1, steps + 1):
            await job.wait(float(job.input["duration"]) / steps)
            job.log(f"step {step}/{steps}\n")
        job.give(f"{job.input['prompt']} (seed {seed}, {steps} steps)")

    fields = {
        "prompt": schema.field("string", "Given back at the end", default="patience"),
        "duration": schema.field("number", "Seconds to take", default=10.0, minimum=0, maximum=3600),
        "steps": schema.field("integer", "Lines of log to write", default=20, minimum=1, maximum=1000),
        "seed": schema.seed_field(),
    }
    return Program(run, schema.model_schema(fields, schema.TEXT), boot_seconds=0.5)


def frames() -> Program:
    """Create a model that outputs files one by one, so its stream URL has the format of file streams."""

    async def run(job: Job) -> None:
        seed = choose_seed(job)
        count = int(job.input["count"])
        for number in range(count):
            await job.wait(float(job.input["duration"]) / count)
            size = int(job.input["size"])
            data = await asyncio.to_thread(paint, str(job.input["prompt"]), seed + number, size, size)
            job.emit(job.host(f"frame-{number}.png", data, "image/png"))
        job.metrics["image_count"] = count

    fields = {
        "prompt": schema.field("string", "What to show", default="a train passing"),
        "count": schema.field("integer", "Number of frames", default=3, minimum=1, maximum=100),
        "size": schema.field("integer", "Width and height", default=64, minimum=16, maximum=1024),
        "duration": schema.field("number", "Seconds for all frames", default=0.3, minimum=0, maximum=3600),
        "seed": schema.seed_field(),
    }
    return Program(run, schema.model_schema(fields, schema.FILE_STREAM))


def analyze() -> Program:
    """Create a model without a seed that returns an object, deterministically."""

    async def run(job: Job) -> None:
        text = str(job.input["text"])
        await job.wait(0.05)
        words = text.split()
        counts: dict[str, Any] = {word: words.count(word) for word in sorted(set(words))[:100]}
        job.give({"words": len(words), "characters": len(text), "counts": counts})

    fields = {"text": schema.field("string", "Text to count", required=True)}
    return Program(run, schema.model_schema(fields, schema.OBJECT), boot_seconds=0.05)


def signer() -> Program:
    """Create a model with secret inputs, which fails with a message that quotes a bad one, as real models do."""

    async def run(job: Job) -> None:
        token = str(job.input.get("api_token", ""))
        await job.wait(0.05)
        if not token.startswith("sk-"):
            job.log(f"token: {token}\n")
            raise ModelError(f"Invalid API token: {token}")
        keys = "".join(map(str, job.input.get("more_tokens") or []))
        job.give(hashlib.sha256(f"{token}{keys}{job.input['text']}".encode()).hexdigest())

    fields = {
        "text": schema.field("string", "Text to sign", required=True),
        "api_token": schema.secret_field("Token that signs", required=True),
        "more_tokens": schema.field("array", "More tokens", items=schema.secret_field("One of them")),
        "seed": schema.seed_field(),
    }
    training = {
        "examples": schema.field("string", "Where to learn from", default="none"),
        "hub_token": schema.secret_field("Token to push with"),
    }
    return Program(run, schema.model_schema(fields, schema.TEXT, training))
