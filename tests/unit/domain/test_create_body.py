"""Bodies of creates."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.create_body import WEBHOOK_EVENTS, CreateBody, parse_create, parse_object
from gateway.domain.targets import Target, TargetKind
from gateway.errors import BadRequest, InvalidField, Unprocessable
from tests.support.json_strategies import SPELLED, VALUES, dumps

VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
FORMS = st.sampled_from(["version", "target", "training"])
HOOK, OTHER = "https://me.example/hook", "https://me.example/other"
FIELDS = ("version", "destination", "input", "webhook", "webhook_events_filter", "stream", "model", "signal", "")


def refused(body: bytes, form: str = "version", **options: bool) -> list[InvalidField]:
    with pytest.raises(Unprocessable) as caught:
        parse_create(body, form, **options)
    assert caught.value.fields
    return caught.value.fields


def outcome(body: bytes, form: str) -> CreateBody | BadRequest:
    try:
        return parse_create(body, form)
    except BadRequest as refusal:
        return refusal


def plain(**fields: object) -> bytes:
    return dumps({"version": VERSION, "input": {}} | fields)


def test_full_body_is_read():
    """Every field that upstream knows is accepted as it is."""
    body = parse_create(
        plain(
            input={"prompt": "x"}, webhook="https://me.example/hook?a=1", webhook_events_filter=["start", "completed"],
            stream=True,
        ),
        "version",
    )  # fmt: skip
    assert body == CreateBody(
        input=b'{"prompt":"x"}',
        target=Target(TargetKind.VERSION, None, VERSION),
        version=VERSION,
        webhook="https://me.example/hook?a=1",
        webhook_events_filter=("start", "completed"),
        stream=True,
    )


def test_each_route_has_its_own_fields():
    """A training has a destination, an official model no version."""
    assert parse_create(b'{"input":{}}', "target") == CreateBody(input=b"{}")
    training = parse_create(b'{"destination":"acme/mine","input":{}}', "training")
    assert training.destination == "acme/mine"
    # Whether it exists is for upstream to say, with its own 404.
    assert parse_create(b'{"destination":"<invalid>","input":{}}', "training").destination == "<invalid>"
    assert refused(b'{"version":"a/b","input":{}}', "target")[0].type == "additional_property_not_allowed"
    # Replicate's schema of trainings admits other fields, which mean nothing.
    assert parse_create(b'{"destination":"a/b","input":{},"stream":true}', "training").stream is None


@pytest.mark.parametrize(
    ("fields", "webhook", "events"),
    [
        ({"webhook_completed": HOOK}, HOOK, ("completed",)),
        ({"webhook_completed": HOOK, "webhook": None}, HOOK, ("completed",)),
        ({"webhook_completed": HOOK, "webhook_events_filter": ["start"]}, HOOK, ("completed",)),
        ({"webhook_completed": OTHER, "webhook": HOOK}, HOOK, None),
        ({"webhook_completed": OTHER, "webhook": HOOK, "webhook_events_filter": ["start"]}, HOOK, ("start",)),
        ({"webhook_completed": 1, "webhook": HOOK}, HOOK, None),
        ({"webhook_completed": None, "webhook": HOOK}, HOOK, None),
        ({"webhook_completed": None}, None, None),
    ],
)
def test_older_webhook_field_means_the_event_completed(fields, webhook, events):
    """The official Python client still offers it; the newer field takes precedence."""
    for form, more in (("version", {"version": VERSION}), ("target", {}), ("training", {"destination": "a/b"})):
        created = parse_create(dumps({"input": {}} | more | fields), form)
        assert (created.webhook, created.webhook_events_filter) == (webhook, events)
        assert b"webhook" not in created.for_upstream()


@pytest.mark.parametrize("value", [1, [], "ftp://a.example", "http://a.example", "https://u:p@a.example"])
def test_error_in_the_older_webhook_field_names_that_field(value):
    """Not the field that the caller did not send."""
    wrong = refused(plain(webhook_completed=value))
    assert [each.field for each in wrong] == ["webhook_completed"]


@pytest.mark.parametrize("name", ["model", "signal", "Version", "webhook_complete", "prefer"])
def test_unknown_field_is_refused_as_upstream_refuses_it(name):
    """A typing error is reported; upstream would refuse it too."""
    assert refused(plain(**{name: 1})) == [
        InvalidField("additional_property_not_allowed", "", f"Additional property {name} is not allowed")
    ]


def test_thousand_unknown_fields_make_a_small_response():
    """A refusal is never many times as large as the request."""
    assert len(refused(plain(**{f"x{number}": 1 for number in range(1000)}))) <= 20


def test_name_of_an_unknown_field_is_truncated_and_escaped():
    """A name of a megabyte, or with line breaks in it, does not spoil the message."""
    description = refused(plain(**{"x\n" * 1000: 1}))[0].description
    assert len(description) < 200
    assert "\n" not in description


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({"version": 5}, [("invalid_type", "version")]),
        ({"version": None}, [("invalid_type", "version")]),
        ({"version": "nonsense"}, [("invalid_value", "version")]),
        ({"version": ["a/b"]}, [("invalid_type", "version")]),
        ({"input": None}, [("invalid_type", "input")]),
        ({"input": []}, [("invalid_type", "input")]),
        ({"input": "x"}, [("invalid_type", "input")]),
        ({"input": 1.5}, [("invalid_type", "input")]),
        ({"stream": "true"}, [("invalid_type", "stream")]),
        ({"stream": 1}, [("invalid_type", "stream")]),
        ({"webhook": 1}, [("invalid_type", "webhook")]),
        ({"webhook": {}}, [("invalid_type", "webhook")]),
        ({"webhook_events_filter": "start"}, [("invalid_type", "webhook_events_filter")]),
        ({"webhook_events_filter": [1]}, [("invalid_type", "webhook_events_filter")]),
        ({"webhook_events_filter": [None]}, [("invalid_type", "webhook_events_filter")]),
        ({"webhook_events_filter": ["start", "end"]}, [("enum", "webhook_events_filter")]),
        ({"version": None, "x": 1}, [("additional_property_not_allowed", ""), ("invalid_type", "version")]),
        ({"version": 1, "input": 2}, [("invalid_type", "input"), ("invalid_type", "version")]),
    ],
)
def test_every_wrong_field_is_named(fields, types):
    """All mistakes are reported at once, each with its kind."""
    assert [(field.type, field.field) for field in refused(plain(**fields))] == types


def test_required_fields_are_named():
    """An empty object lacks both."""
    assert refused(b"{}") == [
        InvalidField("required", "", "input is required"),
        InvalidField("required", "", "version is required"),
    ]


@pytest.mark.parametrize("name", ["webhook", "webhook_events_filter", "stream"])
def test_null_means_absent(name):
    """Clients write null for what was not given."""
    assert parse_create(plain(**{name: None}), "version") == parse_create(plain(), "version")


@pytest.mark.parametrize(
    "webhook",
    [
        "", "me.example/hook", "/hook", "ftp://me.example", "https://", "https:///hook", "https://user@me.example/",
        "https://user:pw@me.example/", "https://me.example:99999/", "https://me.example:0/", "https://[::1",
        "https://me.example/\n", "https://me.example/" + "x" * 2048, "javascript:alert(1)",
        "https://\x00", "file:///etc/passwd", "//me.example/hook",
    ],
)  # fmt: skip
def test_webhook_must_be_a_full_url(webhook):
    """Nothing is stored that could not be called later."""
    assert refused(plain(webhook=webhook))[0].field == "webhook"


@pytest.mark.parametrize(
    ("webhook", "fault"),
    [
        ("https://me.example/" + "x" * 2048, "at most 2048 characters"),
        ("https://me.example/" + "ü" * 2000, "at most 8000 characters long when it is percent-encoded"),
        ("me.example/hook", "an absolute URL, such as https://example.com/hook"),
        ("https://ann:secret@me.example/", "must not contain a user name or password"),
        ("https://me.example/\nX: y", "line breaks or other control characters"),
        ("https://me.example:99999/", "a port from 1 to 65535"),
        ("https://me.example:x/", "a valid host and port"),
        ("https:///hook", "must name a host"),
        ("https://me example/", "a valid host"),
        ("https://127.0.0.1/", "must not point to a private address"),
        # Digits of another script are the same address.
        ("https://１２７.0.0.1/", "must not point to a private address"),
        ("https://" + "a" * 254 + "/", "a host of at most 253 characters"),
    ],
)
def test_refused_webhook_is_told_what_is_wrong(webhook, fault):
    """And not its secret."""
    (field,) = refused(plain(webhook=webhook))
    assert fault in field.description
    assert "secret" not in field.description


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://me.example/hook?order=1&x=%2F", "https://me.example/hook?order=1&x=%2F"),
        ("https://me.example/hook/ü?q=ü", "https://me.example/hook/%C3%BC?q=%C3%BC"),
        (" https://me.example/a b ", "https://me.example/a%20b"),
        ("https://müller.example/", "https://xn--mller-kva.example/"),
        ("HTTPS://me.example:0443", "https://me.example:443"),
    ],
)
def test_webhook_is_normalised_when_it_is_taken(given, sent):
    """It is stored, shown and sent in one form."""
    assert parse_create(plain(webhook=given), "version").webhook == sent


def test_webhook_must_be_https_unless_the_config_allows_http():
    """Signatures do not hide what a webhook says."""
    assert refused(plain(webhook="http://me.example/"))[0].description == "webhook must be an HTTPS URL"
    assert parse_create(plain(webhook="http://me.example/"), "version", allow_http_webhooks=True).webhook


@given(st.lists(st.sampled_from(WEBHOOK_EVENTS), max_size=10))
def test_events_are_kept_once_each_in_order(events):
    """A caller who asks for `start` twice gets it once."""
    assert parse_create(plain(webhook_events_filter=events), "version").webhook_events_filter == tuple(
        dict.fromkeys(events)
    )


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "EOF"), (b" \n ", "EOF"), (b"[]", "an object, got array"), (b"1", "an object, got number"),
        (b'"x"', "got string"), (b"null", "got null"), (b"true", "got boolean"), (b"{", "truncated"),
        (b"{}x", "trailing"), (b'{"input":NaN}', "invalid"), (b'{"input":{"x":Infinity}}', "invalid"),
        (b'{"input":{"x":-Infinity}}', "invalid"),
        (b'{"input":{"x":01}}', "invalid number"), (b'{"input":{},}', "trailing comma"), (b"{'input':{}}", "malformed"),
        (b'{"input":{"x":"\xff"}}', "utf-8"), (b'{"\xff":1}', "utf-8"), (b'\xef\xbb\xbf{"input":{}}', "malformed"),
        (b'{"input":{"x":"\n"}}', "malformed"), (b'{"input":{"x":"\\q"}}', "escape"), (b'{"input":{}} {}', "trailing"),
        (b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (b"[" * 100_000, "Failed"), (b'{"input":' * 50_000, "too deeply"), (b'{"a":"\\ud83d', "Failed"),
    ],
)  # fmt: skip
def test_body_that_is_no_json_object_is_400(body, detail):
    """The words are upstream's, and say what was found."""
    with pytest.raises(BadRequest, match=detail) as caught:
        parse_create(body, "version")
    assert not isinstance(caught.value, Unprocessable)
    assert caught.value.detail.startswith("Failed to parse request body as JSON: ")


def test_last_of_two_equal_names_counts_and_is_sent():
    """What was checked is what is sent."""
    body = parse_create(
        b'{"version":"evil/x","input":{"a":1},"version":"acme/y","input":{"b":2},"\\u0069nput":{"c":3}}', "version"
    )
    assert body.target == Target(TargetKind.MODEL, "acme/y")
    assert body.for_upstream() == b'{"version":"acme/y","input":{"c":3}}'


def test_half_an_emoji_is_accepted_as_upstream_accepts_it():
    """A page that cuts a prompt inside an emoji is not refused for it."""
    body = parse_create(b'{"version":"acme/y","input":{"prompt":"so \\ud83d, \\ud83d\\ude00"}}', "version")
    assert body.input == b'{"prompt":"so \\ufffd, \\ud83d\\ude00"}'


@given(SPELLED)
def test_input_is_sent_byte_for_byte(spelled):
    """No number changes its form and no text its escapes, except half characters, which upstream replaces."""
    body = b'{"version":"acme/y" ,"input": {"x": %s} }' % spelled.encode()
    created = parse_create(body, "version")
    sent = created.for_upstream()
    assert sent == b'{"version":"acme/y","input":%s}' % created.input
    if rb"\ud83d" not in body:
        assert created.input == b'{"x": %s}' % spelled.encode()


@given(
    form=FORMS,
    webhook=st.none() | st.just("https://me.example/"),
    events=st.none() | st.just(["start"]),
    stream=st.none() | st.booleans(),
    value=VALUES,
)
def test_exactly_the_checked_fields_are_sent(form, webhook, events, stream, value):
    """No field is added, and the caller's webhook stays here."""
    fields = {"input": {"value": value}, "webhook": webhook, "webhook_events_filter": events}
    fields |= {"version": {"version": "acme/y"}, "target": {}, "training": {"destination": "acme/mine"}}[form]
    if form != "training":
        fields["stream"] = stream
    sent = json.loads(parse_create(dumps(fields), form).for_upstream())
    assert sent == {
        name: fields[name] for name in ("version", "destination", "input", "stream") if fields.get(name) is not None
    }


@given(st.binary(max_size=200), FORMS)
def test_any_bytes_are_a_create_or_refused(body, form):
    """No body makes the gateway fail."""
    created = outcome(body, form)
    if isinstance(created, CreateBody):
        msgspec.json.decode(created.for_upstream())


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=6) | VALUES, FORMS)
def test_any_json_is_a_create_or_refused(value, form):
    """Any type in any place is reported as a wrong field; a refusal is itself valid JSON."""
    created = outcome(dumps(value), form)
    if isinstance(created, BadRequest):
        msgspec.json.encode(created.detail)
        assert isinstance(value, dict) == isinstance(created, Unprocessable)
    else:
        assert set(json.loads(created.for_upstream())) <= {"version", "destination", "input", "stream"}


@given(st.dictionaries(st.sampled_from(FIELDS), SPELLED, max_size=6), FORMS)
def test_any_spelling_is_a_create_or_refused(fields, form):
    """Numbers out of every range, halves of characters and repeated names are no trouble either."""
    body = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    assert outcome(body.encode(), form)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=5))
def test_top_level_members_keep_their_bytes(value):
    """What is passed on of a body is what was sent."""
    fields = parse_object(dumps(value))
    assert {name: bytes(raw) for name, raw in fields.items()} == {name: dumps(each) for name, each in value.items()}


def test_ten_megabyte_body_is_read_in_a_moment():
    """One caller's large body does not delay the others."""
    for text in ("\\\\" * 5_000_000, '\\"' * 5_000_000, "A" * 10_000_000):
        assert parse_create(f'{{"version":"a/b","input":{{"x":"{text}"}}}}'.encode(), "version").input
