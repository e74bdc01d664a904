"""Image models: paint sky, hills and lights from prompt and seed. Equal requests give equal bytes."""

import asyncio
import io
import random
from functools import lru_cache
from types import ModuleType
from typing import Any

from gateway.simulator.models import schema
from gateway.simulator.models.job import Job, ModelError, Program, choose_seed, dice

_RATIOS = {"1:1": (1, 1), "16:9": (16, 9), "9:16": (9, 16), "4:3": (4, 3), "3:4": (3, 4)}
MISSING_PILLOW = (
    "The simulator's picture models need Pillow; install the extra: pip install '.[simulator]' in a checkout"
)


def pillow() -> tuple[ModuleType, ModuleType]:
    """Import Pillow. Raise `RuntimeError` with the required extra if it is missing."""
    try:
        from PIL import Image, ImageDraw  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise RuntimeError(MISSING_PILLOW) from error
    return Image, ImageDraw


def sized_program() -> Program:
    """Create a model with width and height."""
    fields = {
        "prompt": schema.field("string", "Input prompt", default="An astronaut riding a rainbow unicorn"),
        "width": schema.field("integer", "Width of output image", default=512, minimum=16, maximum=2048),
        "height": schema.field("integer", "Height of output image", default=512, minimum=16, maximum=2048),
        "num_outputs": schema.field("integer", "Number of images to output.", default=1, minimum=1, maximum=4),
        "steps": schema.field("integer", "Number of steps", default=10, minimum=1, maximum=500),
        "duration": schema.field("number", "Seconds to take", default=0.5, minimum=0, maximum=3600),
        "seed": schema.seed_field(),
    }
    return Program(run, schema.model_schema(fields, schema.FILES))


def ratio_program() -> Program:
    """Create a model with an aspect ratio, like most official models."""
    fields = {
        "prompt": schema.field("string", "Prompt for generated image", required=True),
        "aspect_ratio": schema.field(
            "string", "Aspect ratio for the generated image", enum=list(_RATIOS), default="1:1"
        ),
        "num_outputs": schema.field("integer", "Number of outputs to generate", default=1, minimum=1, maximum=4),
        "output_format": schema.field("string", "Format of the output images", enum=["png", "jpg"], default="png"),
        "seed": schema.seed_field(),
    }
    return Program(run, schema.model_schema(fields, schema.FILES))


def sdxl_program() -> Program:
    """Create a popular community model with its inputs."""
    fields: dict[str, dict[str, Any]] = {
        "prompt": schema.field("string", "Input prompt", default="An astronaut riding a rainbow unicorn"),
        "negative_prompt": schema.field("string", "Input Negative Prompt", default=""),
        "image": schema.field("string", "Input image for img2img or inpaint mode", format="uri"),
        "width": schema.field("integer", "Width of output image", default=1024),
        "height": schema.field("integer", "Height of output image", default=1024),
        "num_outputs": schema.field("integer", "Number of images to output.", default=1, minimum=1, maximum=4),
        "scheduler": schema.field("string", "scheduler", enum=["DDIM", "K_EULER", "PNDM"], default="K_EULER"),
        "num_inference_steps": schema.field("integer", "Number of denoising steps", default=50, minimum=1, maximum=500),
        "guidance_scale": schema.field(
            "number", "Scale for classifier-free guidance", default=7.5, minimum=1, maximum=50
        ),
        "prompt_strength": schema.field("number", "Prompt strength", default=0.8, minimum=0, maximum=1),
        "seed": schema.seed_field(),
        "refine": schema.field(
            "string", "Which refine style to use", enum=["no_refiner", "expert_ensemble_refiner"], default="no_refiner"
        ),
        "high_noise_frac": schema.field("number", "The fraction of noise to use", default=0.8, minimum=0, maximum=1),
        "lora_scale": schema.field("number", "LoRA additive scale.", default=0.6, minimum=0, maximum=1),
        "apply_watermark": schema.field("boolean", "Applies a watermark", default=True),
    }
    training = {"input_images": schema.field("string", "A .zip file with the images", format="uri", required=True)}
    return Program(run, schema.model_schema(fields, schema.FILES, training))


async def run(job: Job) -> None:
    """Paint the images, with a progress bar in the logs."""
    settings = job.input
    seed = choose_seed(job)
    prompt = str(settings.get("prompt", ""))
    job.log(f"Prompt: {prompt}\n")
    width, height = _size(settings)
    steps = int(settings.get("num_inference_steps", settings.get("steps", 4)))
    duration = float(settings.get("duration", 0.5))
    for step in range(0, steps + 1, max(1, steps // 5)):
        await job.wait(duration / 6)
        share = step * 100 // steps
        job.log(f"{share:3d}%|{'█' * (share // 10):<10}| {step}/{steps} [00:00<00:00, 20.0it/s]\n")
    kind = str(settings.get("output_format", "png"))
    links = []
    for number in range(int(settings.get("num_outputs", 1))):
        data = await asyncio.to_thread(paint, prompt, seed + number, width, height, kind)
        links.append(job.host(f"out-{number}.{kind}", data, f"image/{'jpeg' if kind == 'jpg' else kind}"))
    job.metrics["image_count"] = len(links)
    job.give(links)


@lru_cache(maxsize=128)
def paint(prompt: str, seed: int, width: int, height: int, kind: str = "png") -> bytes:
    """Paint an image. Cached, because load tests request the same few images."""
    image_module, draw_module = pillow()
    generator = dice("image", prompt, seed)
    canvas = image_module.new("RGB", (width, height))
    draw = draw_module.Draw(canvas)
    above, below = _colour(generator), _colour(generator)
    for y in range(height):
        share = y / height
        draw.line([(0, y), (width, y)], fill=tuple(int(a + (b - a) * share) for a, b in zip(above, below, strict=True)))
    for _ in range(12):
        x, y = generator.randrange(width), generator.randrange(height)
        radius = generator.randrange(2, max(3, width // 8))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_colour(generator))
    for layer in range(3):
        ground = height * (6 + layer) // 9
        points = [(0, height)]
        points += [(width * n // 8, ground - generator.randrange(max(1, height // 6))) for n in range(9)]
        draw.polygon([*points, (width, height)], fill=_colour(generator))
    return encode(canvas, kind)


def encode(canvas: Any, kind: str = "png") -> bytes:
    """Encode an image without metadata that differs between runs."""
    buffer = io.BytesIO()
    if kind == "jpg":
        canvas.save(buffer, "JPEG", quality=85)
    else:
        canvas.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _size(settings: dict[str, Any]) -> tuple[int, int]:
    if "aspect_ratio" in settings:
        across, down = _RATIOS[settings["aspect_ratio"]]
        return (512 * across // max(across, down), 512 * down // max(across, down))
    width, height = int(settings.get("width", 512)), int(settings.get("height", 512))
    if not (16 <= width <= 2048 and 16 <= height <= 2048):
        raise ModelError(f"Invalid size {width}x{height}: width and height must be between 16 and 2048")
    return width, height


def _colour(generator: random.Random) -> tuple[int, int, int]:
    return (generator.randrange(256), generator.randrange(256), generator.randrange(256))
