"""The content of a config as bytes, to tell whether two configs are equal."""

import json
from hashlib import sha256

from gateway.config.model import Config

_OF_ONE_NODE = {"server": {"host", "port"}, "ops": {"host", "port"}}
"""Nodes of one host differ in them."""


def content_of(config: Config) -> bytes:
    """Return what is equal for equal configs: all settings but the addresses of listeners, and digests of the secrets.

    Secrets can be short, so show only a keyed digest of the result.
    """
    settings = config.model_dump(mode="json", exclude=_OF_ONE_NODE)
    secrets = sorted(sha256(value.encode("utf-8", "surrogatepass")).hexdigest() for value in config.secret_values())
    return json.dumps([settings, secrets], sort_keys=True).encode()
