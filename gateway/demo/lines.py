"""Terminal output of the demo: URLs, keys, and commands to paste."""

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from gateway.demo.stack import MODELS, TEAMS, Demo

_PROMPT: Final = "Write a few lines about llamas"


def curl(demo: Demo) -> str:
    """Return a POSIX shell command that runs the text model with curl."""
    return (
        f"curl -sS {demo.base_url}/models/{MODELS['text']}/predictions"
        f" -H 'Authorization: Bearer {demo.keys[TEAMS[0]]}' -H 'Content-Type: application/json' -H 'Prefer: wait'"
        f""" -d '{{"input": {{"prompt": "{_PROMPT}", "seed": 42}}}}'"""
    )


def node(demo: Demo) -> str:
    """Return a command that streams it with Replicate's npm client."""
    return (
        "node --input-type=module -e '"
        'import Replicate from "replicate"; '
        f'const replicate = new Replicate({{ auth: "{demo.keys[TEAMS[0]]}", baseUrl: "{demo.base_url}" }}); '
        f'for await (const event of replicate.stream("{MODELS["text"]}", '
        f'{{ input: {{ prompt: "{_PROMPT}", seed: 42 }} }})) process.stdout.write(String(event))'
        "'"
    )


def python(demo: Demo) -> str:
    """Return a command that runs it with Replicate's Python client, whose base URL has no `/v1`."""
    return (
        f"REPLICATE_BASE_URL={demo.origin} REPLICATE_API_TOKEN={demo.keys[TEAMS[0]]} "
        "python3 -c 'import replicate; "
        f'print(*replicate.run("{MODELS["text"]}", input={{"prompt": "{_PROMPT}", "seed": 42}}), sep="")'
        "'"
    )


def announcement(demo: Demo) -> str:
    """Return the text that the demo prints at start."""
    longest = max(map(len, TEAMS))
    key_rows = [f"{team:<{longest}}  {key}" for team, key in demo.keys.items()]
    npm = "" if demo.has_npm_client else "   (without the npm client; `make demo` in a checkout builds it)"
    program = "gateway" if shutil.which("gateway") else shlex.quote(str(Path(sys.executable).parent / "gateway"))
    end = "keeps its keys and data" if demo.is_kept else "deletes its data; `gateway demo --data DIR` keeps it"
    rows = [
        "A gateway in front of a simulator of Replicate. Nothing leaves this machine, nothing is charged.",
        "",
        f"  Page      {demo.page_url}{npm}",
        f"  Console   {demo.usage_url}",
        f"  Base URL  {demo.base_url}",
        f"  Keys      {key_rows[0]}",
        *(f"            {row}" for row in key_rows[1:]),
        "",
        "Commands to paste into another terminal:",
        "",
        "# curl",
        curl(demo),
        "",
        "# Node.js, requires `npm install replicate`",
        node(demo),
        "",
        "# Python, requires `pip install replicate`; this client adds /v1 itself",
        python(demo),
        "",
        "# The gateway's own command line",
        f"export GATEWAY_CONFIG={shlex.quote(str(demo.config_file.resolve()))}",
        f"{program} keys list",
        f"{program} usage --by model",
        f"{program} keys create {TEAMS[0]} --name mine",
        "",
        f"Ctrl+C stops the demo and {end}. Requests are listed below: hit is from the cache, joined shares a run.",
    ]
    return "\n".join(rows)
