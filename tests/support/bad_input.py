"""A gateway with small bounds."""

from tests.support.stack import Stack

MAX_BODY = 64 * 1024
MAX_UPLOAD = 256 * 1024
JSON = ("Content-Type", "application/json")


def files_of(stack: Stack) -> int:
    return len(stack.upstream.world.files._files)
