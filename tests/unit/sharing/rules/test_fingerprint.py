"""Two spellings of one request have equal fingerprints; any other difference makes them unequal."""

import json
import re
import tracemalloc
from functools import partial
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain import file_content
from gateway.domain.file_content import FileContent
from gateway.domain.targets import Target, TargetKind, parse_version, target_identity
from gateway.models.rules.schema import InputSchema
from gateway.sharing.rules.fingerprint import MAX_DEPTH, MAX_VALUES, fingerprint, provisional, sharing_scope
from tests.support.fingerprints import SHAPES, key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"steps":1}', '{"steps":1.0}'),
        ('{"steps":100}', '{"steps":1e2}'),
        ('{"steps":100}', '{"steps":1000.0E-1}'),
        ('{"scale":3}', '{"scale":3.000}'),
        ('{"scale":0.10}', '{"scale":0.1}'),
        ('{"scale":1E-2}', '{"scale":0.01}'),
        ('{"any":0.10}', '{"any":0.1}'),
        ('{"any":[1E-2]}', '{"any":[0.01]}'),
        ('{"any":10.0}', '{"any":1e1}'),
        ('{"steps":0}', '{"steps":-0.0}'),
        ('{"steps":0}', '{"steps":0e99999}'),
        ('{"scale":0}', '{"scale":0.00}'),
        ('{"scale":0}', '{"scale":-0}'),
        ('{"steps":1180591620717411303424}', '{"steps":1180591620717411303424.0}'),
        ('{"steps":1000000000000000000}', '{"steps":1e18}'),
        ('{"steps":10000000000000000000}', '{"steps":1e19}'),
        ('{"steps":1000000000000000000000000000000}', '{"steps":1e30}'),
        ('{"scale":1e400}', '{"scale":10E+399}'),
        ('{"scale":1e0000000000000000000000000000002}', '{"scale":100}'),
        ('{"points":[1,2]}', '{"points":[1.0,2e0]}'),
        ('{"box":{"w":1}}', '{"box":{"w":1.0}}'),
        ("{}", '{"scale":7.5,"steps":5e1,"prompt":"a cat","points":[1.0,2.50],"any":null}'),
        ('{"a":1,"b":2}', ' {"b" :2,\n"\\u0061":1}'),
        ('{"prompt":"\\ud83d\\ude00\\/\\u00e9"}', '{"prompt":"😀/é"}'),
        ('{"steps":1,"steps":2}', '{"steps":2}'),
    ],
)
def test_other_spelling_of_an_input_is_equal(one, other):
    """A cache that distinguishes 1 from 1.0 would pay twice for one picture."""
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"any":1}', '{"any":1.0}'),
        ('{"any":[1]}', '{"any":[1.0]}'),
        ('{"unknown":1}', '{"unknown":1.0}'),
        ('{"box":{"z":1}}', '{"box":{"z":1.0}}'),
        ('{"prompt":1}', '{"prompt":1.0}'),
        ('{"scale":[1]}', '{"scale":[1.0]}'),
        ('{"scale":0.0}', '{"scale":-0.0}'),
        ('{"any":0.0}', '{"any":-0.0}'),
        ('{"any":0}', '{"any":-0.0}'),
        ('{"steps":1}', '{"steps":"1"}'),
        ('{"steps":1}', '{"steps":true}'),
        ('{"steps":1}', '{"steps":[1]}'),
        ('{"steps":18446744073709551616}', '{"steps":18446744073709551617}'),
        ('{"steps":1180591620717411303424}', '{"steps":1180591620717411303425}'),
        ('{"steps":9007199254740992}', '{"steps":9007199254740993}'),
        ('{"steps":9007199254740992}', '{"steps":9007199254740992.5}'),
        ('{"steps":1}', '{"steps":1.0000000000000000000000001}'),
        ('{"scale":0.1}', '{"scale":0.1000000000000000055511151231257827}'),
        ('{"scale":1e-400}', '{"scale":0}'),
        ('{"scale":1e400}', '{"scale":1e401}'),
        ("{}", '{"scale":null}'),
        ("{}", '{"image":null}'),
        ("{}", '{"prompt":""}'),
        ("{}", '{"unknown":null}'),
        ('{"prompt":"é"}', '{"prompt":"e\\u0301"}'),
        ('{"prompt":"a"}', '{"Prompt":"a"}'),
        ('{"any":{}}', '{"any":[]}'),
        ('{"any":[[],1]}', '{"any":[[1]]}'),
        ('{"any":{"a":{"b":1}}}', '{"any":{"a":1,"b":1}}'),
        ('{"any":"null"}', '{"any":null}'),
        ('{"image":"data:,a"}', '{"image":"a"}'),
        ('{"prompt":"data:,a%20b"}', '{"prompt":"data:;base64,YSBi"}'),
        ('{"image":"data:;base64,QQ=="}', '{"image":"data:;base64,QQ"}'),
    ],
)
def test_similar_inputs_are_unequal(one, other):
    """A cache that treats these as equal would return wrong pictures."""
    assert key(one) != key(other)


def test_uploaded_and_inline_file_are_equal():
    """The JavaScript client uploads a Blob once, sends it inline the next time, and hits the same entry."""
    url = "https://gateway.example.com/v1/files/abc"
    files = {url: file_content.of_file(sha256(b"hello").hexdigest(), "text/plain; charset=utf-8", "hello.TXT")}
    uploaded = key(json.dumps({"image": url, "any": [{"deep": url}]}), files=files)
    inline = key('{"image":"data:text/plain,hello","any":[{"deep":"data:text/plain;base64,aGVsbG8="}]}')
    assert uploaded == inline
    assert key(json.dumps({"image": url})) != key(json.dumps({"image": url}), files=files)
    assert key(json.dumps({"image": url + "x"}), files=files) == key(json.dumps({"image": url + "x"}))


def test_name_of_an_input_is_never_a_file():
    """An input whose name is a file's link keeps its name."""
    assert key('{"any":{"data:,a":1}}') != key('{"any":{"data:;base64,YQ==":1}}')


def test_data_uri_in_a_text_input_stays_text():
    """A language model sees the spelling of a data: URI; two such prompts are two requests."""
    assert key('{"prompt":"data:text/plain;x=y,a"}') != key('{"prompt":"data:text/plain,a"}')
    assert key('{"image":"data:text/plain;x=y,a"}') == key('{"image":"data:text/plain,a"}')


@pytest.mark.parametrize(
    ("media_type", "name"),
    [("audio/wav", "a.png"), ("image/png", "a.jpg"), ("image/png", "png"), ("", "a.png"), ("image/jpeg", "a.jpeg")],
)
def test_equal_bytes_of_another_type_or_extension_are_another_file(media_type, name):
    """Models go by the media type and the extension: "Unsupported file type"."""
    files = {url: file_content.of_file(sha256(b"hello").hexdigest(), media_type, name) for url in ["https://f/1"]}
    assert key('{"image":"https://f/1"}', files=files) != key('{"image":"data:image/png;base64,aGVsbG8="}')
    assert key('{"image":"data:image/png,hello"}') != key('{"image":"data:audio/wav,hello"}')


def test_link_of_the_gateways_own_counts_by_content_in_a_text_input():
    """Models of older versions of Cog call the address of a file a string."""
    content = file_content.of_file("ab" * 32, "image/png", "a.png")
    files = {"https://gateway/outputs/1": content, "https://gateway/outputs/2": content}
    one, other = (key(json.dumps({"prompt": url}), files=files) for url in files)
    assert one == other


def test_inputs_ignored_by_a_rule_are_left_out():
    """A note for the webhook makes no other picture; a nested value of that name does."""
    note = key('{"steps":1,"note":"a","box":{"note":1}}', ignore=["note"])
    assert note == key('{"steps":1,"note":"b","box":{"note":1}}', ignore=["note"])
    assert note == key('{"steps":1,"box":{"note":1}}')
    assert note != key('{"steps":1,"box":{"note":2}}', ignore=["note"])
    assert key("{}", ignore=["steps"]) == key('{"steps":7}', ignore=["steps"])


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"null", b"1", b'"x"', b"{", b'{"a":}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-}', b'{"a":01}',
        b'{"a":1.}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":1} x', b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":1e9999999999999999999}', b'{"a":1e-' + b"9" * 9000 + b"}", b"\xef\xbb\xbf{}",
    ],
)  # fmt: skip
def test_incomparable_input_raises(text):
    """Such a request runs unshared; it neither crashes the gateway nor equals another."""
    with pytest.raises(ValueError, match="the input"):
        key(text)


@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 990, 1000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_too_deep_nesting_raises_a_clear_error(depth, opening, closing):
    """A body of brackets cannot crash the gateway."""
    with pytest.raises(ValueError, match=r"nested more than 128 deep|more than 20000 values"):
        key('{"a":' + opening * depth + "1" + closing * depth + "}")


def test_nesting_within_the_limit_is_compared():
    """A workflow of many levels can be shared."""
    assert key('{"a":' + "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1) + "}")


def test_number_of_values_is_limited():
    """A body of a million numbers does not delay other callers."""
    numbers = "[" + "1," * MAX_VALUES + "1]"
    for text in (f'{{"a":{numbers}}}', f'{{"a":{numbers},"a":1}}', f'{{"a": \n{numbers}}}'):
        with pytest.raises(ValueError, match="more than 20000 values"):
            key(text)
    with pytest.raises(ValueError, match="more than 20000 values"):
        key("{" + ",".join(f'"{n}":1' for n in range(MAX_VALUES + 1)) + "}")


def test_long_text_is_one_value():
    """A book in the prompt, with all its commas and brackets, can be shared."""
    text = ",[{" * MAX_VALUES
    assert json.loads(key(json.dumps({"prompt": text})))["prompt"] == text


def test_numbers_are_not_expanded():
    """A small body cannot become a large canonical form."""
    text = '{"points":[' + ",".join(["1e4000"] * 1000) + "]}"
    assert len(key(text)) < len(text) + 100


def test_fingerprints_differ_by_target_scope_and_finality():
    """Another model, another team, or a provisional identity: never the same entry."""
    keys = [
        make(target, text, scope)
        for make in (fingerprint, partial(provisional, secret=b"s"))
        for target in ("version:a", "model:a/b", "deployment:a/b", "version:a\n5:all")
        for scope in ("all", "team:all", "team:acme", "team:acm")
        for text in (b"{}", b'{"a":1}', b"e{}")
    ]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys)


def test_fingerprints_are_stable_across_releases():
    """The next release finds entries of this one, or the version number of the format changes."""
    text = key('{"steps":1.0,"image":"data:,a","any":[1.5,-2,"é"]}')
    assert text == (
        b'{"any":[15e-1,-2,"\xc3\xa9"],"image":'
        b'file:["ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb","text/plain",".txt"],'
        b'"points":[1,25e-1],"prompt":"a cat","scale":75e-1,"steps":1}'
    )
    head = b"replicate-gateway fingerprint 2\n9:model:a/b\n6:team:x\n"
    assert fingerprint("model:a/b", text, "team:x") == sha256(head + text).hexdigest()


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        (
            '{"steps":1.0,"image":"data:,a","any":[1.5,-2,"é"]}',
            "2322a53b351a4dcb4832222ba6764077efdf8ceeb0a3f7fc76251133548f093f",
            "47501944eb30af5f5e8a1743bde9630168e95d20e51377ebc27f54391175406d",
        ),
        (
            '{"seed":42,"prompt":"a \\u0063at","scale":7.50}',
            "8815f4f49e35ec78d1bd63f10debaff58eb71e798017e3caa89421d7b0b9e956",
            "6b0de992390ca89a3c81259995da023d94616e596d7c92be10dc6e0cbf7c0057",
        ),
        (
            "{}",
            "872120da81c92d86aa8dd926628fb7d04ff63f09e5b70767be013e42675c67f6",
            "008990d6831890a46a13ec17de456a0b85fc15d41bd872e6942a106f8b67d898",
        ),
    ],
)
def test_recorded_fingerprints_are_found_again(text, known, unknown):
    """Entries that were stored by an earlier version are found under their keys."""
    assert fingerprint("model:a/b", key(text), "team:x") == known
    assert provisional("version:v", key(text, None), "all", b"s") == unknown


@given(st.sampled_from(["{}", '{"other":1e2}', '{"scale":2}', '{"image":"data:,b","scale":1e2}']), st.booleans())
def test_schema_that_was_used_before_gives_equal_forms(text, is_linked):
    """What is derived from a schema once is what would be computed each time."""
    fresh = InputSchema(SHAPES, defaults=b'{"image":"data:,a","prompt":"data:,a","scale":1e99999999999999999999}')
    fresh = fresh if "scale" in text else replace(fresh, defaults=b'{"image":"https://x.example/a","scale":0.50}')
    files = {"https://x.example/a": FileContent("a" * 64, "image/png", ".png")} if is_linked else None
    used = replace(fresh)
    for given_before in ('{"scale":1}', text):
        key(given_before, used)
        key(given_before, used, ignore=["scale"])
    assert key(text, used, files) == key(text, fresh, files)
    assert (b"file:" in key(text, used, files)) == ("scale" in text or is_linked)
    assert b'"scale"' not in key(text, used, files, ignore=["scale"])


def test_default_without_a_form_matters_only_if_it_is_used():
    """A default with an exponent that is out of range is no reason not to compare inputs that replace it."""
    schema = InputSchema(SHAPES, defaults=b'{"scale":1e99999999999999999999,"steps":1.0}')
    for _ in range(2):
        assert key('{"scale":2}', schema) == b'{"scale":2,"steps":1}'
        with pytest.raises(ValueError, match="exponent"):
            key("{}", schema)


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_target_and_scope_cannot_imitate_each_other(target, scope, other_target, other_scope):
    """No team's name can be chosen so as to read another team's entries."""
    same = (target, scope) == (other_target, other_scope)
    assert (fingerprint(target, b"{}", scope) == fingerprint(other_target, b"{}", other_scope)) == same


def test_posted_forms_of_a_version_are_equal():
    """`run("owner/name:version")` posts the bare id; others post the whole name."""
    version = "a" * 64
    whole, bare = parse_version(f"acme/toy:{version}"), parse_version(version)
    assert target_identity(whole) == target_identity(bare) == f"version:{version}"
    names = {target_identity(Target(kind, "acme/toy", version)) for kind in TargetKind}
    assert len(names) == 3


def test_team_called_all_shares_with_itself_only():
    """A team's name does not change with whom it shares."""
    assert sharing_scope("team", "all") != sharing_scope("all", "acme") == sharing_scope("all", "all")
    assert sharing_scope("team", "acme") != sharing_scope("team", "acme2")


def test_large_file_is_not_copied():
    """Ten callers who send ten megabytes each do not need three times that memory."""
    text = b'{"image":"data:image/png;base64,' + b"QUJD" * 1_000_000 + b'"}'
    tracemalloc.start()
    try:
        key(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * len(text)
