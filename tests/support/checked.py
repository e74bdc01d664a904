"""`gateway check` on a config of the test."""

from pathlib import Path

from click.testing import CliRunner, Result

from gateway.cli import main

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
OPS = "ops-token-ops-token"
CONFIG = """
[ops]
token_env = "OPS"
[upstream]
base_url = "{base_url}"
[store]
url = "{store_url}"
[[teams]]
name = "acme"
models = ["acme/*"]
origins = ["https://app.example.com"]
requests_per_minute = 1000000
budget_usd_per_day = 200
per_address = {{ requests_per_minute = 60 }}
keys = [{{ name = "web", sha256 = "{digest}" }}]
[[teams]]
name = "research"
"""


def check(*arguments: str, config: str = "", base_url: str = "https://api.replicate.com", **settings: str) -> Result:
    settings = {"store_url": "sqlite:///gateway.db", "digest": "ab" * 32, **settings}
    Path("config.toml").write_text(config or CONFIG.format(base_url=base_url, **settings))
    environ = {"REPLICATE_API_TOKEN": TOKEN, "OPS": OPS, "GATEWAY_CONFIG": ""}
    return CliRunner().invoke(main, ["check", *arguments], env=environ, prog_name="gateway")
