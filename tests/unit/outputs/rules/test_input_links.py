"""Links of stored outputs are recognised in every spelling that leads to them."""

import pytest

from gateway.outputs.rules.input_links import parse

LINK = "https://gw.example.com/outputs/abc-0-proof/out.png"


@pytest.mark.parametrize(
    "text",
    [
        LINK,
        f"\t {LINK} ",
        LINK.upper().replace("/OUTPUTS/ABC-0-PROOF/OUT.PNG", "/outputs/abc-0-proof/out.png"),
        LINK.replace("/outputs", "\\outputs"),
        LINK.replace("https://", "https:/"),
        LINK.replace("https://", "https:\\\\"),
        LINK.replace("https://", "https:"),
        LINK.replace("outputs", "out\nputs"),
        LINK.replace("outputs", "%6Futputs"),
        LINK.replace("/outputs", "/prefix/./outputs"),
        LINK.replace("/outputs", "/x/%2e%2e/outputs"),
        LINK.replace("gw.example", "user:pw@GW.example"),
        LINK + "?a=b#c",
    ],
)
def test_spelling_is_recognised(text):
    link = parse(text)
    assert link is not None
    assert (link.ticket, link.name) == ("abc-0-proof", "out.png")
    assert link.is_on(["http://gw.example.com"])
    assert not link.is_on(["https://other.example.com", "https://gw.example.com:8443"])


@pytest.mark.parametrize(
    "text",
    [
        "", "a/outputs/b/c", f"see {LINK}", "https://gw.example.com/outputs/", "https:///outputs",
        "ftp://gw.example.com/outputs/a/b", "https://gw.example.com/?/outputs/a/b",
        "https://" + "a" * 5000 + "/outputs/a/b",
        "https://" + "a\u0301" * 200 + "/outputs/a/b",
    ],
)  # fmt: skip
def test_other_text_is_no_link(text):
    assert parse(text) is None
