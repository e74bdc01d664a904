"""An upscaler: reads an input image and returns a larger one. It has no seed."""

import asyncio
import io

from gateway.simulator.models import schema
from gateway.simulator.models.image import encode, pillow
from gateway.simulator.models.job import Job, ModelError, Program

_LARGEST_SIDE = 4096


def program() -> Program:
    """Create the model."""
    fields = {
        "image": schema.field("string", "Image to upscale", format="uri", required=True),
        "scale": schema.field("integer", "Factor to scale image by", default=2, minimum=1, maximum=4),
        "duration": schema.field("number", "Seconds to take", default=0.3, minimum=0, maximum=3600),
    }
    return Program(run, schema.model_schema(fields, schema.FILE))


async def run(job: Job) -> None:
    """Read, enlarge and host the image."""
    data = await job.fetch(str(job.input["image"]))
    job.log(f"Read {len(data)} bytes\n")
    await job.wait(float(job.input["duration"]))
    larger = await asyncio.to_thread(enlarge, data, int(job.input["scale"]))
    job.give(job.host("output.png", larger, "image/png"))
    job.metrics["image_count"] = 1


def enlarge(data: bytes, scale: int) -> bytes:
    """Return the image enlarged by `scale`, as PNG."""
    image_module, _ = pillow()
    try:
        with image_module.open(io.BytesIO(data)) as picture:
            width, height = picture.width * scale, picture.height * scale
            if max(width, height) > _LARGEST_SIDE:
                raise ModelError(f"CUDA out of memory. {width}x{height} is larger than {_LARGEST_SIDE}x{_LARGEST_SIDE}")
            return encode(picture.convert("RGB").resize((width, height), image_module.Resampling.BICUBIC))
    except OSError as error:
        raise ModelError(f"cannot identify image file <_io.BytesIO object> ({len(data)} bytes)") from error
