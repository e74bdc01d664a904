"""Which links in an input may lead to something else tomorrow."""

import json

import pytest

from gateway.domain.file_content import FileContent
from gateway.models.rules.schema import read_schema
from gateway.sharing.rules.external_links import (
    DEFAULT_TEXT_INPUTS,
    IMMUTABLE,
    is_immutable,
    parse_pattern,
)
from gateway.sharing.rules.fingerprint import Input

CAMERA = "https://example.com/cam/latest.jpg"
CDN = (*IMMUTABLE, parse_pattern("https://cdn.example.com/v/*"), parse_pattern("https://*.img.example.com/a*/x-*.png"))
OUTPUT = "https://replicate.delivery/pbxt/abc/out-0.png"


def has_link(given, schema=None, plain=DEFAULT_TEXT_INPUTS, immutable=IMMUTABLE, files=None) -> bool:
    text = given if isinstance(given, bytes) else json.dumps(given).encode()
    return Input(text, files or {}).has_external_link(schema, plain, immutable)


@pytest.mark.parametrize(
    "given",
    [
        {"image": CAMERA},
        {"image": "HTTP://EXAMPLE.COM/x"},
        {"text": f"look at {CAMERA} please"},
        {"images": [{"deep": [OUTPUT, CAMERA]}]},
        {"options": {CAMERA: 1}},
        {"image": f"{OUTPUT} {CAMERA}"},
        {"image": f" {OUTPUT}"},
        {"options": {"prompt": CAMERA}},
        b'{"image":"http:\\/\\/example.com\\/x"}',
        b'{"image":"\\u0068ttp://example.com/x"}',
        b'{"image":"http\\u003a//example.com/x"}',
        b'{"image":"ht\\ntp:\\t//example.com/x"}',
        {"image": "http:\\\\example.com\\x"},
        {"image": "http:/example.com/x"},
        {"image": " HTTPS:example.com/x"},
        {"image": "ht\ttps:\nexample.com/x"},
        {"image": "data:text/plain,http://example.com/x y"},
    ],
)
def test_link_to_another_host_is_external(given):
    assert has_link(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seed": 5, "scale": 1.5},
        {"prompt": f"a picture like {CAMERA}", "negative_prompt": CAMERA, "system_prompt": [CAMERA]},
        {"image": OUTPUT, "images": ["https://pbxt.replicate.delivery/a", "https://REPLICATE.delivery:443/a?x#y"]},
        {"image": "data:image/svg+xml,%3Csvg%20xmlns='http://www.w3.org/2000/svg'/%3E"},
        {"text": "ratio 16:9, path a:/b, scheme https: only"},
        {"text": "https: is a scheme"},
        {"lora": "owner/name", "url": "ftp://example.com"},
    ],
)
def test_input_without_a_link_that_changes_has_none(given):
    assert not has_link(given)


def test_file_of_the_gateways_own_counts_by_its_content():
    link = "https://api.replicate.com/v1/files/abc"
    assert has_link({"image": link})
    assert not has_link({"image": link}, files={link: FileContent("ab" * 32)})
    assert has_link({"image": link + "?x"}, files={link: FileContent("ab" * 32)})


def test_plain_inputs_are_those_that_the_rule_names():
    assert has_link({"prompt": CAMERA}, plain=frozenset())
    assert not has_link({"note": CAMERA}, plain=frozenset({"note"}))


def test_default_of_the_schema_counts_where_the_input_is_not_given():
    """The model fetches its default image like any other."""
    inputs = {"image": {"type": "string", "default": CAMERA}, "size": {"type": "integer", "default": 1}}
    document = {"openapi_schema": {"components": {"schemas": {"Input": {"properties": inputs}}}}}
    schema = read_schema(json.dumps(document).encode())
    assert has_link({}, schema)
    assert not has_link({"image": OUTPUT}, schema)
    assert not has_link({}, schema, plain=frozenset({"image"}))


@pytest.mark.parametrize(
    ("link", "is_one"),
    [
        ("https://cdn.example.com/v/1/a.png", True),
        ("HTTPS://CDN.example.com/v/a.png?size=3#top", True),
        ("https://cdn.example.com/w/../v/a.png", True),
        ("https://cdn.example.com/v/%61.png", True),
        ("https://a.b.img.example.com/abc/x-1.png", True),
        ("https://cdn.example.com/v//a.png", True),
        ("https://cdn.example.com//v/a.png", False),
        ("https://cdn.example.com/cam//../v/a.png", False),
        ("https://cdn.example.com/v/../latest.png", False),
        ("https://cdn.example.com/v/%2e%2e/latest.png", False),
        ("https://cdn.example.com/v/..%2flatest.png", False),
        ("https://cdn.example.com/v/..\\latest.png", False),
        ("https://cdn.example.com/latest.png?/v/", False),
        ("https://cdn.example.com/latest.png#/v/", False),
        ("http://cdn.example.com/v/a.png", False),
        ("https://cdn.example.com:8443/v/a.png", False),
        ("https://cdn.example.com@evil.example/v/a.png", False),
        ("https://user@cdn.example.com/v/a.png", False),
        ("https://evil.example/https://cdn.example.com/v/a.png", False),
        ("https://cdn.example.com.evil.example/v/a.png", False),
        ("https://xcdn.example.com/v/a.png", False),
        ("https://img.example.com/abc/x-1.png", False),
        ("https://evilimg.example.com/abc/x-1.png", False),
        ("https://b.img.example.com/abc/y-1.png", False),
        ("https://replicate.delivery.evil.example/a", False),
        ("https://evilreplicate.delivery/a", False),
        ("https://cdn.example.com/v/" + "a" * 5000, False),
        ("https://cdn.example.com/v/a b", False),
    ],
)
def test_pattern_matches_scheme_host_and_normal_path(link, is_one):
    assert is_immutable(link, CDN) is is_one
    assert has_link({"image": link}, immutable=CDN) is not is_one


@pytest.mark.parametrize(
    "text", ["", "cdn.example.com/*", "ftp://a/*", "https://*/x", "https://a b/", "https://a/?x=1"]
)
def test_bad_pattern_is_refused(text):
    with pytest.raises(ValueError, match="https://cdn"):
        parse_pattern(text)
