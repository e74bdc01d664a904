"""Links: led back to the gateway, and turned back before they go upstream."""

import json
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import links
from gateway.domain.links import MAX_FILE_LINKS, FileLink
from gateway.errors import Unprocessable
from tests.support.json_strategies import SPELLED, VALUES, dumps

BASE = "https://gw.example/v1"
ID = "NGZiNmY2YzQtNzk4YS00NDBkLWE4ZWQtYTEyNjBhMzRhNmQz"
LINK = f"{BASE}/files/{ID}"
API = "https://api.replicate.com/v1"
UPSTREAM = f"{API}/files/{ID}"


@pytest.mark.parametrize(
    ("url", "led"),
    [
        ("https://api.replicate.com/v1/models?cursor=cD0y%3D", f"{BASE}/models?cursor=cD0y%3D"),
        ("https://api.replicate.com/v1/predictions", f"{BASE}/predictions"),
        ("http://127.0.0.1:9090/v1/models?cursor=a&b=1#x", f"{BASE}/models?cursor=a&b=1"),
        ("https://proxy.example/replicate/v1/models?c=1", f"{BASE}/models?c=1"),
        ("https://api.replicate.com/v1/models/acme/v1/versions?c=1", f"{BASE}/models/acme/v1/versions?c=1"),
        ("https://api.replicate.com/v1/models/v1/toy/versions", f"{BASE}/models/v1/toy/versions"),
        ("", None),
        (None, None),
        ("https://evil.example/next", None),
        ("https://api.replicate.com/v2/models", None),
        ("https://api.replicate.com/models?x=/v1/", None),
        ("https://[", None),
        ("https://api.replicate.com/v1/../../admin", None),
        ("https://api.replicate.com/v1/a/%2e%2E/b", None),
        ("https://api.replicate.com/v1/a%2f..%2fb", None),
        ("https://api.replicate.com/v1/..\\x", None),
    ],
)
def test_page_links_lead_to_the_gateway(url, led):
    """The next page is the gateway's; a link to another host is dropped."""
    assert links.lead_back(url, BASE) == led


PATHS = st.lists(st.sampled_from(["v1", "models", "..", ".", "", "%2e%2e", "%2F", "\\", "a b", "@evil.example", "é"]))


@given(st.sampled_from(["https://api.replicate.com", "https://evil.example", "//x", ""]), PATHS, st.text(max_size=5))
def test_no_page_link_leaves_the_base(origin, path, query):
    """Clients follow `next` with their key: it must stay below the base, however a client resolves it."""
    led = links.lead_back(f"{origin}/{'/'.join(path)}?{query}", BASE)
    if led is not None:
        assert led.startswith(BASE + "/")
        assert urlsplit(urljoin("https://other.example/", led)).netloc == "gw.example"
        assert urlsplit(urljoin("https://other.example/", led)).path.startswith("/v1/")


@given(st.text(max_size=60))
def test_any_text_is_a_link_or_none(url):
    """Nothing that upstream writes breaks a page."""
    led = links.lead_back(url, BASE)
    assert led is None or led.startswith(BASE + "/")


def test_only_the_pages_own_links_are_changed():
    """Examples nested in a model's page are unchanged."""
    nested = '[{"urls":{"get":"https://api.replicate.com/v1/predictions/x"},"next":"https://api.replicate.com/v1/x"}]'
    head = r'{"next":"https:\/\/api.replicate.com\/v1\/models?cursor=c","previous":null,"x":3e-06,"results":'
    body = f"{head}{nested}}}".encode()
    page = links.split_page(body)
    assert page is not None
    for base in (BASE, "http://localhost:8080/v1"):
        shown = page.render(base)
        assert shown == f'{{"next":"{base}/models?cursor=c","previous":null,"x":3e-06,"results":{nested}}}'.encode()


@given(SPELLED, SPELLED)
def test_results_of_a_page_keep_their_bytes(one, other):
    """2 MB of models are passed on as they came."""
    body = b'{"next":null,"previous":null,"results":[%s],"more":%s}' % (one.encode(), other.encode())
    page = links.split_page(body)
    assert page is not None
    assert page.render(BASE) == body


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b'{"results":[]}', b'{"next":null}', b'{"next":5,"results":[]}', b"<html>",
        b'{"next":"x","results":[]', b'{"\xff":1}', b"[" * 100_000, b'[{"name":"CPU","sku":"cpu"}]',
        b'{"next":null,"results":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_body_that_is_no_page_has_no_links(body):
    """Other responses are passed on whole."""
    assert links.split_page(body) is None


def test_file_shows_its_gateway_link():
    """A file uploaded through the gateway is read through it."""
    document = b'{"id":"%s","size":0,"metadata":{"x":3e-06},"urls":{"get":"%s"}}' % (ID.encode(), UPSTREAM.encode())
    assert links.file_document(document, BASE) == document.replace(UPSTREAM.encode(), LINK.encode())


def links_of(value: object) -> list[str]:
    return [link.file_id for link in links.file_links(dumps(value))]


@pytest.mark.parametrize(
    "text",
    [
        LINK, UPSTREAM, LINK + "/", f"http://localhost:8080/v1/files/{ID}", f"https://gw.example/files/{ID}",
        f"https://gw.example/v1/v1/files/{ID}", f"https://gw.example/prefix/v1/files/{ID}==",
        f"HTTPS://GW.example/v1/files/{ID}", LINK + "?x=1", LINK + "#x", LINK + "/?", f" {LINK}\n",
        f"https://user:pw@gw.example/v1/files/{ID}", f"https://gw.example:443/v1/files/{ID}",
        f"https://gw.example/v1/%66iles/{ID}", f"https://gw.example/v1/files/%4E{ID[1:]}",
        f"https://gw.example/v1//files//{ID}", f"https://gw.example/v1/files/x/../{ID}",
        f"https://gw.example/v1/./files/./{ID}", LINK + "?pad=" + "x" * 10_000, LINK + "%3D",
        rf"https:\\gw.example\v1\files\{ID}", f"https:/gw.example/v1/files/{ID}", f"https:gw.example/v1/files/{ID}",
        f"https:////gw.example/v1/files/{ID}", f"https://gw.example/v1/fi\tles/{ID}",
        f"ht\ntps:/\r/gw.example/files/{ID}",
        f"\0\x1f {LINK}\x01", LINK + "  ", rf"https:/\gw.example/v1\files/{ID}", f"https://gw.example/v1/files%2F{ID}",
        f"https://gw.example/v1%5Cfiles%5C{ID}", " " * 50 + LINK,
    ],
)  # fmt: skip
def test_file_link_is_found_in_any_spelling(text):
    """A server that fetches it undoes the spelling, so no team reads another's file by one."""
    assert links_of({"image": text}) == [ID]


@pytest.mark.parametrize(
    "text",
    [
        f"see {LINK}", f"{LINK} please", f"![]({LINK})", ID, f"/v1/files/{ID}", f"ftp://gw.example/files/{ID}",
        "https://gw.example/v1/files/", "https://gw.example/v1/files", f"{LINK}/download", "https://gw.example/files/cat.png",
        f"https://replicate.delivery/pbxt/{ID}/out.png", f"https://gw.example/profiles/{ID}", f"[\"{LINK}\"]",
        f"{{\"a\":\"{LINK}\"}}", f"https://gw.example/?x=/files/{ID}", "data:," + LINK, "https:///files/" + ID,
        f"https://gw.example/v1/files/{ID}/../x.png",
    ],
)  # fmt: skip
def test_text_that_contains_a_link_is_no_link(text):
    """A prompt may mention links; nested JSON in a text is a text."""
    assert links_of({"prompt": text}) == []
    body = dumps({"prompt": text})
    assert links.translate(body, {LINK: "https://x"}) == body


def escaped(text: str, how: str) -> str:
    match how:
        case "slashes":
            return text.replace("/", r"\/")
        case "all":
            return "".join(rf"\u{ord(letter):04x}" for letter in text)
        case "ALL":
            return "".join(rf"\u{ord(letter):04X}" for letter in text)
        case _:
            return text


@pytest.mark.parametrize("how", ["plain", "slashes", "all", "ALL"])
@pytest.mark.parametrize("where", ["%s", "[%s]", '[[["x",%s]]]', '{"a":{"b":[{"c":%s}]}}', '[%s , 3e-06,"\\\\"]'])
def test_links_are_rewritten_at_any_depth_and_escape(where, how):
    """A file that was uploaded through the gateway reaches the model."""
    body = '{"before":"\\u003c","x": %s ,"after":"\\\\\\""}'
    theirs = (body % where % f'"{escaped(LINK, how)}"').encode()
    assert [link.url for link in links.file_links(theirs)] == [LINK]
    assert links.translate(theirs, {LINK: UPSTREAM}) == (body % where % f'"{UPSTREAM}"').encode()


@given(SPELLED, st.sampled_from(["plain", "slashes", "all", "ALL"]), st.sampled_from(["", " ", "\n"]))
def test_only_the_link_is_changed(spelled, how, space):
    """Every other byte of an input reaches the model as it was sent; object keys are no links."""
    link = f'"{escaped(LINK, how)}"'
    frame = '{"a":%s,%s%s:[%s%s],"b":%s}'
    body = (frame % (spelled, link, space, link, space, spelled)).encode()
    expected = (frame % (spelled, link, space, f'"{UPSTREAM}"', space, spelled)).encode()
    assert links.translate(body, {LINK: UPSTREAM}) == expected


@given(VALUES)
def test_without_replacements_nothing_changes(value):
    """An input without files is passed on untouched."""
    body = dumps({"x": value})
    assert links.translate(body, {}) is body
    assert links.translate(body, {LINK: UPSTREAM}) == body


def test_link_with_half_a_character_is_no_link():
    """What cannot be read cannot be a file's; it is skipped."""
    body = rf'["{LINK}?\ud83d","{LINK}"]'.encode()
    assert [link.url for link in links.file_links(body)] == [LINK]


def test_unknown_links_stay():
    """Another gateway's file is left to the model."""
    other = "https://other.example/files/abcdefgh1234"
    body = dumps({"a": [other, LINK, other]})
    assert links.translate(body, {LINK: UPSTREAM}) == dumps({"a": [other, UPSTREAM, other]})


def test_too_many_links_are_refused():
    """The store is not asked for a million files."""
    assert len(links_of([LINK] * MAX_FILE_LINKS)) == MAX_FILE_LINKS
    with pytest.raises(Unprocessable, match="file links"):
        links_of([LINK] * (MAX_FILE_LINKS + 1))


@pytest.mark.parametrize(
    "text",
    [
        b'"data:image/png;base64,' + b"A" * 10_000_000 + b'"',
        b'"' + rb"\"" * 5_000_000 + b'"',
        b'"' + rb"\\" * 5_000_000 + b'"',
        b'"files' + rb"\\\"" * 2_500_000 + b'"',
        b'"https://' + b"/files/" * 1_400_000 + b'"',
        b'"https://x/files/' + b"a" * 10_000_000 + b'"',
        b'"https://' + b"@" * 10_000_000 + b'"',
        b'"http' + b":" * 10_000_000 + b'"',
        b'"' + b" " * 10_000_000 + b'"',
        b'"' + rb"\u0020" * 1_600_000 + b'"',
        b'"https://x/' + b"../" * 3_300_000 + b'"',
        b"[" + b'"",' * 3_300_000 + b"1]",
        b"[" + b'"http://",' * 300_000 + b"1]",
        b'{"a"' + b" " * 10_000_000 + b":1}",
        b"[" + b" " * 10_000_000 + b"]",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_megabytes_are_scanned_in_linear_time(text):
    """One caller's large input does not stop the others: the time is linear, and the memory small."""
    # Quadratic time would be hours: the test's timeout is the bound.
    body = b'{"x":' + text + b',"files":"' + LINK.encode() + b'"}'
    assert [link.url for link in links.file_links(body)][-1:] == [LINK]
    assert len(links.translate(body, {LINK: UPSTREAM})) == len(body) - len(LINK) + len(UPSTREAM)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://api.replicate.com/v1", "https://api.replicate.com"),
        ("HTTPS://API.Replicate.com:443/", "https://api.replicate.com"),
        ("http://127.0.0.1:9090/v1", "http://127.0.0.1:9090"),
        ("https://user@api.replicate.com./x", "https://api.replicate.com"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
        ("https://[::1]/", "https://[::1]"),
        ("https://api.replicate.com:/", "https://api.replicate.com"),
        ("https://%61pi.replicate.com:0443/", "https://api.replicate.com"),
        ("https://ａpi.replicate.com/", "https://api.replicate.com"),
    ],
)
def test_origin_has_one_spelling(url, origin):
    """Upstream is recognised under every name that leads to it."""
    assert links.origin_of(url) == origin
    link = links.file_links(dumps([f"{url.rstrip('/')}/files/{ID}"]))[0]
    assert link.origin == origin


@pytest.mark.parametrize(
    "text",
    [
        LINK, rf"https:\\gw.example\v1\files\{ID}", f"https:/gw.example/v1/files/{ID}", f"https://GW%2Eexample/files/{ID}",
        rf"https://other.example\@gw.example/v1/files/{ID}", rf"https://gw.example\@other.example/v1/files/{ID}",
        f"https://a@b@gw.example/v1/files/{ID}", f"https://g\u00adw.exam\u200bple/v1/files/{ID}",
        f"https://gw\u3002example/v1/files/{ID}", f"https://\uff47w.example/v1/files/{ID}",
        "https://gw.example/v1/" + "%2f" * 2_000_000 + f"files/{ID}", LINK + "/" * 5000,
    ],
    ids=lambda text: ascii(text[:40]),
)  # fmt: skip
def test_link_is_on_the_gateway_if_any_parser_reads_it_so(text):
    """Browsers and Python read some links differently. What either takes for a file of the gateway is one."""
    found = links.file_links(dumps({"image": text}))
    assert [links.is_among(link, ["https://gw.example/"]) for link in found] == [True]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("http://127.1:8080", "http://127.0.0.1:8080"), ("http://0x7f000001", "http://127.0.0.1"),
        ("http://0177.0.0.1", "http://127.0.0.1"), ("http://2130706433", "http://127.0.0.1"),
        ("http://[0:0:0::1]:81", "http://[::1]:81"), ("http://256.256", "http://256.256"), ("http://1.2.3.4.5", None),
    ],
)  # fmt: skip
def test_address_has_one_spelling(text, origin):
    """An IP address of the gateway is recognised in the forms that resolvers take."""
    assert links.origin_of(text) == (origin or text)


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "a" * 300 + f"/v1/files/{ID}", "https://a" + "\u0301\u0327" * 50_000 + f"/files/{ID}",
        f"https://a b/v1/files/{ID}", f"https:///?/v1/files/{ID}", f"ftp://gw.example/v1/files/{ID}",
    ],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_what_no_host_can_be_is_no_link(text):
    """No host is longer than 253 letters, or has a space."""
    assert links.file_links(dumps([text])) == []


def test_link_that_hides_in_line_ends_is_refused():
    """A link is not read to its end if thousands of its characters are ignored."""
    with pytest.raises(Unprocessable, match="line ends"):
        links.file_links(dumps(["http" + "\n" * 50_000 + f"://gw.example/v1/files/{ID}"]))


def test_http_and_https_are_the_same_place():
    """`http` instead of `https` makes no other file of it; another port is another place."""
    link = FileLink(UPSTREAM, "http://api.replicate.com", ID)
    assert links.is_among(link, ["https://other.example", "https://api.replicate.com/"])
    assert not links.is_among(link, ["https://api.replicate.com:8443"])
    assert not links.is_among(link, [])


def test_path_of_a_link_is_reported():
    """The caller learns which of ten images it was."""
    value = {"a": ["x", {"b": LINK}], "c": LINK, "d": 5}
    assert links.path_of(value, LINK) == "input.a[1].b"
    assert links.path_of(value, "nowhere") == "input"
    assert links.path_of(LINK, LINK) == "input"


@given(st.lists(st.sampled_from(["k", 0]), max_size=8), VALUES)
def test_reported_path_leads_to_the_link(steps, other):
    """The path can be followed to the value."""
    value: object = LINK
    path = ""
    for step in reversed(steps):
        value, path = ([value], f"[0]{path}") if step == 0 else ({"k": value}, f".k{path}")
    assert links.path_of({"in": value, "other": other}, LINK) == f"input.in{path}"


def test_deep_or_wide_input_is_handled():
    """Neither nesting nor a name of a megabyte breaks the message."""
    deep: object = LINK
    for _ in range(5000):
        deep = [deep]
    assert links.path_of(deep, LINK).endswith("[0]")
    assert len(links.path_of({"x" * 1_000_000: [LINK]}, LINK)) < 100
    assert links.path_of(json.loads(json.dumps([1.5, None, True])), quote(LINK)) == "input"


@pytest.mark.parametrize(
    "spelled", [r"https://x.example/é\"", r"https:\/\/x.example\/\u00e9\"", r"\u0068ttps://x.example/é\""]
)
@given(before=SPELLED, after=SPELLED)
def test_url_is_replaced_only_as_a_whole_string(spelled, before, after):
    """Every other byte stays: spaces, escapes, order and numbers; keys, and texts that contain it, too."""
    url = 'https://x.example/é"'
    body = f'{{"a":[{before}, "{spelled}" ], "{spelled}" : "see {spelled}","b":{after}}}'.encode()
    assert url in list(links.addresses(body))
    changed = links.replace_addresses(body, {url: "https://g/1", "https://elsewhere/": "x"})
    assert changed == body.replace(f'"{spelled}" ]'.encode(), b'"https://g/1" ]')
    assert links.replace_addresses(body, {}) == body
