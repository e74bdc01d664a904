"""A language model of a few dozen words. Its tokens have leading spaces and line breaks; the last one is empty."""

import math
import random
from collections.abc import Iterator
from itertools import islice

from gateway.simulator.models import schema
from gateway.simulator.models.job import Job, Program, choose_seed, dice

_SUBJECTS = (
    " a llama",
    " the river",
    " an old clock",
    " the quiet city",
    " a paper boat",
    " the gardener",
    " one small lamp",
)
_VERBS = (" remembers", " carries", " forgets", " paints", " follows", " answers", " keeps")
_OBJECTS = (
    " the morning",
    " a long song",
    " seven seas",
    " its own name",
    " the snow",
    " every door",
    " what was said",
)
_MARKS = (",\n", ".\n", ";\n", " —\n", "\n")
_OPENINGS = (" a verse", " a thought", " a short song", " what I know")


def _fields(limit: int, *, seeded: bool = True) -> dict[str, dict[str, object]]:
    fields: dict[str, dict[str, object]] = {
        "prompt": schema.field("string", "Prompt to send to the model.", required=True),
        "system_prompt": schema.field(
            "string", "System prompt to send to the model.", default="You are a helpful assistant."
        ),
        "max_tokens": schema.field(
            "integer", "Maximum number of tokens to generate.", default=64, minimum=1, maximum=limit
        ),
        "temperature": schema.field(
            "number", "Randomness of the output; 0 is deterministic.", default=0.75, minimum=0, maximum=5
        ),
        "token_delay": schema.field("number", "Seconds between two tokens.", default=0.02, minimum=0, maximum=60),
        "duration": schema.field(
            "number", "Seconds for the whole output, instead of token_delay.", minimum=0, maximum=3600
        ),
    }
    return {**fields, "seed": schema.seed_field()} if seeded else fields


def program(*, limit: int = 4096, seeded: bool = True) -> Program:
    """Create a text model, with a seed input if `seeded`."""
    training = {
        "train_data": schema.field("string", "A file with the training data", format="uri", required=True),
        "num_train_epochs": schema.field("integer", "Number of epochs", default=5, minimum=1, maximum=1000),
    }
    return Program(run, schema.model_schema(_fields(limit, seeded=seeded), schema.TEXT_STREAM, training))


async def run(job: Job) -> None:
    """Stream the output token by token."""
    settings = job.input
    prompt = str(settings.get("prompt", ""))
    if settings.get("temperature") == 0:
        generator = dice("text", prompt, settings.get("system_prompt"), settings.get("seed", 0))
    else:
        seed = choose_seed(job)
        generator = dice("text", prompt, settings.get("system_prompt"), seed, settings.get("temperature"))
    count = int(settings.get("max_tokens", settings.get("max_new_tokens", 64)))
    duration = settings.get("duration")
    pause = float(settings.get("token_delay", 0.02)) if duration is None else float(duration) / count
    for token in tokens(generator, prompt, count):
        await job.wait(pause)
        job.emit(token)
    job.emit("")
    job.metrics.update(
        input_token_count=max(1, math.ceil(len(prompt) / 4)),
        output_token_count=count,
        time_to_first_token=pause,
        tokens_per_second=1 / pause if pause else 1000.0,
    )


def tokens(generator: random.Random, prompt: str, count: int) -> Iterator[str]:
    """Return exactly `count` tokens that depend on generator and prompt only."""
    topic = " ".join(prompt.split()[-3:]) or "nothing"
    yield from islice(_endless(generator, topic), count)


def _endless(generator: random.Random, topic: str) -> Iterator[str]:
    yield "\n\n"
    yield "Here is"
    yield generator.choice(_OPENINGS)
    yield " about"
    for word in topic.split():
        yield f" {word}"
    yield ":\n\n"
    while True:
        for part in (_SUBJECTS, _VERBS, _OBJECTS):
            yield generator.choice(part)
        yield generator.choice(_MARKS)
        if generator.random() < 0.2:
            yield "\n"
