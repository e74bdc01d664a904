"""`gateway check --origin`: which pages may call, and why others may not."""

import pytest

from tests.support.checked import check

PAGES = f"""
[[teams]]
name = "acme"
origins = ["https://app.example.com", "http://localhost:5173", "https://*.preview.example.com"]
keys = [{{ name = "page", sha256 = "{"ab" * 32}", origins = ["https://app.example.com"] }}]
[[teams]]
name = "open"
origins = ["*"]
[[issuers]]
issuer = "https://id.example.com"
audience = "gateway"
team = "acme"
origins = ["https://app.example.com"]
"""


@pytest.mark.parametrize(
    ("page", "lines"),
    [
        (
            "https://App.example.com:443/a/page?x=1",
            [
                "team acme: https://app.example.com is listed",
                "  key page works from this page",
                "  users of id.example.com can call from this page",
                "team open: https://app.example.com is allowed by *, so without credentials",
            ],
        ),
        (
            "https://a.b.preview.example.com/x",
            [
                "team acme: https://a.b.preview.example.com is matched by https://*.preview.example.com",
                "  key page does not work from this page",
                "  users of id.example.com cannot call from this page",
                "team open: https://a.b.preview.example.com is allowed by *, so without credentials",
            ],
        ),
        (
            "http://localhost:5173",
            [
                "team acme: http://localhost:5173 is listed",
                "  key page does not work from this page",
                "  users of id.example.com cannot call from this page",
                "team open: http://localhost:5173 is allowed by *, so without credentials",
            ],
        ),
    ],
)
def test_origin_that_is_allowed_is_explained(folder, page, lines):
    """Which teams, which publishable keys; the address of a page will do."""
    result = check("--origin", page, config=PAGES)
    assert (result.exit_code, result.stdout.splitlines(), result.stderr) == (0, lines, "")


@pytest.mark.parametrize(
    ("page", "hints"),
    [
        ("http://app.example.com", ["team acme lists https://app.example.com, which differs in the scheme"]),
        ("https://www.app.example.com", ["team acme lists https://app.example.com, which differs in the host name"]),
        ("http://127.0.0.1:5173", ["team acme lists http://localhost:5173, which differs in the host name"]),
        ("http://localhost:3000", ["team acme lists http://localhost:5173, which differs in the port"]),
        (
            "https://preview.example.com",
            [
                (
                    "team acme lists https://*.preview.example.com, which differs in the host name: a pattern does not "
                    "match its domain itself"
                )
            ],
        ),
        (
            "http://a.preview.example.com",
            ["team acme lists https://*.preview.example.com, which differs in the scheme"],
        ),
        ("https://evil.example", []),
    ],
)
def test_origin_that_is_refused_is_explained(folder, page, hints):
    """The commonest mistakes differ in one part only; the fix has the line of the file."""
    result = check("--origin", page, config=PAGES.partition('[[teams]]\nname = "open"')[0])
    assert (result.exit_code, result.stdout) == (1, "")
    first, fix, *found = result.stderr.splitlines()
    assert first.startswith(f"{page} is in no team's origins: preflights get no Access-Control-Allow-Origin")
    assert fix == f'to allow it, add "{page}" to the origins of a team (acme) and reload'
    assert found == [f'{hint}: teams "acme" origins (line 4)' for hint in hints]


def test_only_the_nearest_origin_of_a_team_is_shown(folder):
    """A team that lists the addresses of many development servers would fill the screen."""
    ports = ", ".join(f'"http://localhost:{port}"' for port in range(5100, 5200))
    config = f'[[teams]]\nname = "acme"\norigins = [{ports}]\n'
    result = check("--origin", "http://127.0.0.1:5173", config=config)
    assert [line for line in result.stderr.splitlines() if "which differs" in line] == [
        'team acme lists http://localhost:5173, which differs in the host name: teams "acme" origins (line 3)'
    ]


@pytest.mark.parametrize(
    "page", ["file:///home/me/index.html", "null", "app.example.com", "https://", "https://*.a.com"]
)
def test_what_is_no_origin_is_a_usage_error(folder, page):
    """A page opened from a file has none that could be listed."""
    result = check("--origin", page, config=PAGES)
    assert result.exit_code == 2
    assert ("serve it over http" in result.stderr) == (page in {"file:///home/me/index.html", "null"})
