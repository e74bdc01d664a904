"""What the demo says in the terminal: where it is, the keys, and lines to paste."""

from typing import Final

from gateway.demo.stack import MODELS, TEAMS, Demo

_PROMPT: Final = "Write a few lines about llamas"


def curl(demo: Demo) -> str:
    """Return a line for a POSIX shell that runs the text model with curl."""
    return (
        f"curl -sS {demo.base_url}/models/{MODELS['text']}/predictions"
        f" -H 'Authorization: Bearer {demo.keys[TEAMS[0]]}' -H 'Content-Type: application/json' -H 'Prefer: wait'"
        f""" -d '{{"input": {{"prompt": "{_PROMPT}", "seed": 42}}}}'"""
    )


def node(demo: Demo) -> str:
    """Return a line that streams it with Replicate's npm client."""
    return (
        "node --input-type=module -e '"
        'import Replicate from "replicate"; '
        f'const replicate = new Replicate({{ auth: "{demo.keys[TEAMS[0]]}", baseUrl: "{demo.base_url}" }}); '
        f'for await (const event of replicate.stream("{MODELS["text"]}", '
        f'{{ input: {{ prompt: "{_PROMPT}", seed: 42 }} }})) process.stdout.write(String(event))'
        "'"
    )


def python(demo: Demo) -> str:
    """Return a line that runs it with Replicate's Python client, whose base URL goes without `/v1`."""
    return (
        f"REPLICATE_BASE_URL={demo.origin} REPLICATE_API_TOKEN={demo.keys[TEAMS[0]]} "
        "python3 -c 'import replicate; "
        f'print(*replicate.run("{MODELS["text"]}", input={{"prompt": "{_PROMPT}", "seed": 42}}), sep="")'
        "'"
    )


def announcement(demo: Demo) -> str:
    """Return all that a newcomer needs."""
    longest = max(map(len, TEAMS))
    key_rows = [f"{team:<{longest}}  {key}" for team, key in demo.keys.items()]
    npm = "" if demo.has_npm_client else "   (without the npm client, which `make demo` builds in a checkout)"
    rows = [
        "A gateway in front of a stand-in for Replicate. Nothing leaves this machine, nothing is charged.",
        "",
        f"  Page      {demo.page_url}{npm}",
        f"  Usage     {demo.usage_url}",
        f"  Base URL  {demo.base_url}",
        f"  Keys      {key_rows[0]}",
        *(f"            {row}" for row in key_rows[1:]),
        "",
        "Lines to paste into another terminal:",
        "",
        "# curl",
        curl(demo),
        "",
        "# Node.js, where `npm install replicate` was run",
        node(demo),
        "",
        "# Python, where `pip install replicate` was run; this client adds /v1 by itself",
        python(demo),
        "",
        "Ctrl+C stops it and removes everything.",
    ]
    return "\n".join(rows)
