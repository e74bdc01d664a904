"""Links: every one that the API makes leads back here, whatever base the caller used; nothing else is touched."""

import json
from typing import Any

import pytest

from tests.support.http_calls import Reply, ask, raw_request, send_raw
from tests.support.samples import create, upload
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

PUBLIC_URL = "https://gateway.example.org"


async def get(stack: Stack, path: str, *headers: tuple[str, str], host: str = "gw.test:81") -> Reply:
    return await send_raw(stack, raw_request("GET", path, headers, host=host, key=stack.keys["alpha"]))


@pytest.mark.parametrize("prefix", ["/v1", "", "/v1/v1"], ids=["v1", "bare", "doubled"])
async def test_links_use_the_base_of_the_request(gateway: Stack, prefix: str):
    """A client's next request goes to the gateway again, at the address it used before, and works."""
    made = await ask(
        gateway,
        "POST",
        f"{prefix}/predictions",
        json={"version": version_of(gateway.upstream, "acme/storyteller"), "input": {"prompt": "hi"}},
    )
    urls = made.json["urls"]
    me = f"{gateway.origin}/v1/predictions/{made.json['id']}"
    assert (urls["get"], urls["cancel"]) == (me, me + "/cancel")
    assert urls["stream"].startswith(f"{gateway.origin}/v1/streams/")
    assert made.headers["Location"] == me
    assert None not in urls.values()
    assert (await ask(gateway, "GET", urls["get"])).json["id"] == made.json["id"]
    assert (await ask(gateway, "GET", urls["stream"], key=None)).status == 200
    assert (await ask(gateway, "POST", urls["cancel"])).status == 200
    listed = (await ask(gateway, "GET", f"{prefix}/predictions")).json["results"][0]
    assert listed["urls"] == urls
    file = (await ask(gateway, "POST", f"{prefix}/files", **upload())).json
    assert file["urls"]["get"] == f"{gateway.origin}/v1/files/{file['id']}"
    assert (await ask(gateway, "GET", file["urls"]["get"])).json == file
    assert (await ask(gateway, "GET", f"{prefix}/files")).json["results"] == [file]


async def test_file_stream_link_keeps_its_prefix(gateway: Stack):
    """The JavaScript client reads a stream as files only if its path begins with /v1/files/."""
    stream = (await create(gateway, model="acme/frames")).json["urls"]["stream"]
    assert stream.startswith(f"{gateway.origin}/v1/files/")
    assert (await ask(gateway, "GET", stream, key=None)).headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_prediction_without_a_stream_has_no_stream_link(gateway: Stack):
    """No link is invented, and none is null, which clients refuse."""
    assert sorted((await create(gateway)).json["urls"]) in (["cancel", "get"], ["cancel", "get", "web"])


async def test_page_links_lead_forward_and_back(gateway: Stack):
    """Following `next` to the end and `previous` to the start visits every item once, on the gateway."""
    seen: list[str] = []
    path = f"{gateway.base_url}/models"
    pages = []
    while path:
        reply = (await ask(gateway, "GET", path)).json
        pages.append(reply)
        seen += [f"{each['owner']}/{each['name']}" for each in reply["results"]]
        path = reply["next"]
        assert path is None or path.startswith(f"{gateway.base_url}/models?cursor=")
        assert len(pages) < 50
    assert sorted(seen) == sorted(gateway.upstream.world.registry.models)
    for page in pages[1:]:
        assert page["previous"].startswith(f"{gateway.base_url}/models?")


async def test_host_header_names_the_base(gateway: Stack):
    """Behind its own name, the gateway uses that name."""
    await create(gateway)
    for host in ("gw.test", "gw.test:8443", "[::1]:80", "10.0.0.1"):
        urls = (await get(gateway, "/v1/predictions", host=host)).json["results"][0]["urls"]
        assert urls["get"].startswith(f"http://{host}/v1/predictions/")


FORWARDED = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil.example")]


async def test_forwarded_headers_of_untrusted_clients_are_ignored(gateway: Stack):
    """A caller cannot make links that lead elsewhere by sending a header."""
    await create(gateway)
    more = [("Forwarded", "host=evil.example;proto=https"), ("X-Forwarded-For", "127.0.0.1"), ("X-Original-Host", "e")]
    reply = await get(gateway, "/v1/predictions", *FORWARDED, *more)
    assert b"evil" not in reply.body
    assert reply.json["results"][0]["urls"]["get"].startswith("http://gw.test:81/v1/")


async def test_forwarded_headers_of_a_trusted_proxy_name_the_base(open_gateway: OpenGateway):
    """Behind TLS the links say https; in a chain the nearest proxy's value counts."""
    async with open_gateway(server={"trusted_proxies": ["127.0.0.0/8"]}) as stack:
        await create(stack)
        proxied = [("X-Forwarded-Proto", "ftp, https"), ("X-Forwarded-Host", "evil.example, public.example:444")]
        urls = (await get(stack, "/v1/predictions", *proxied)).json["results"][0]["urls"]
        assert urls["get"].startswith("https://public.example:444/v1/")
        plain = (await get(stack, "/v1/predictions")).json["results"][0]["urls"]
        assert plain["get"].startswith("http://gw.test:81/v1/")
        for bad in (("X-Forwarded-Proto", "javascript"), ("X-Forwarded-Host", "a/b"), ("X-Forwarded-Host", "")):
            assert (await get(stack, "/v1/predictions", bad)).status == 400


async def test_proxy_outside_the_trusted_networks_is_ignored(open_gateway: OpenGateway):
    """Only the networks in the config are trusted."""
    async with open_gateway(server={"trusted_proxies": ["10.0.0.0/8", "::1/128"]}) as stack:
        await create(stack)
        assert b"evil" not in (await get(stack, "/v1/predictions", *FORWARDED)).body


async def test_public_url_overrides_the_request(open_gateway: OpenGateway):
    """With `public_url` set, no header counts, not even a malformed Host."""
    async with open_gateway(server={"public_url": PUBLIC_URL, "trusted_proxies": ["127.0.0.0/8"]}) as stack:
        made = await create(stack, model="acme/storyteller")
        assert made.json["urls"]["get"].startswith(f"{PUBLIC_URL}/v1/predictions/")
        assert made.json["urls"]["stream"].startswith(f"{PUBLIC_URL}/v1/streams/")
        for reply in (
            await get(stack, "/v1/predictions", *FORWARDED),
            await get(stack, "/predictions", host="a b"),
        ):
            assert reply.json["results"][0]["urls"] == made.json["urls"]
        models = (await get(stack, "/v1/models?sort_by=model_created_at")).json
        assert models["next"] is None or models["next"].startswith(f"{PUBLIC_URL}/v1/models?")


async def test_links_inside_examples_and_texts_are_unchanged(gateway: Stack):
    """A model's example belongs to upstream; a rewritten link would lead to a prediction that no one here owns."""
    reply = await ask(gateway, "GET", "/v1/models/acme/painter")
    direct = await ask(
        gateway,
        "GET",
        f"{gateway.upstream.base_url}/models/acme/painter",
        headers={"Authorization": f"Bearer {gateway.upstream.token}"},
    )
    assert reply.body == direct.body
    text = f"see {gateway.upstream.base_url}/predictions/x and https://api.replicate.com/v1/files/abc"
    made = (await create(gateway, model="acme/slow", prompt=text, duration=0.1, steps=1)).json
    assert made["input"]["prompt"] == text


# What is inside an input is the model's business, byte for byte.

ODD = (
    '{ "big":123456789012345678901234567890 , "exp":1.0E+2,"neg":-0.0,"long":0.1000000000000000055511151231257827,'
    '"escapes":"\\u00e9\\u003c\\/\\t\\ud83d\\ude00","raw":"é<\\"\\\\","dup":1,"dup":2,"":null,"nested":[[[]],{"a":{}}],'
    '"text":"files /v1/files/ and http://x/v1/files/","prompt":"hi" }'
)


async def sent_up(stack: Stack, given: str, **more: Any) -> str:
    """Create with an input as it is spelled; return the input as it arrived upstream."""
    stack.upstream.requests.clear()
    version = version_of(stack.upstream, "acme/storyteller")
    rest = "".join(f',"{name}":{json.dumps(value)}' for name, value in more.items())
    data = f'{{"version":"{version}","input":{given}{rest}}}'
    headers = {"Content-Type": "application/json"}
    reply = await ask(stack, "POST", "/v1/predictions", data=data.encode(), headers=headers)
    assert reply.status == 201, reply.text
    (seen,) = stack.upstream.requests.find("predictions.create")
    assert seen.body.startswith('{"version":"')
    return seen.body.partition(',"input":')[2][:-1]


async def test_input_arrives_byte_for_byte(gateway: Stack):
    """No number changes its form, no text its escapes, no space goes missing."""
    assert await sent_up(gateway, ODD) == ODD


async def test_upstream_body_has_no_webhook_and_no_added_field(gateway: Stack):
    """The gateway sends webhooks itself; upstream would bypass the team's own secret."""
    hook = "https://hooks.example.com/x?run=1"
    sent = await sent_up(gateway, '{"prompt":"hi"}', webhook=hook, webhook_events_filter=["completed"])
    assert sent == '{"prompt":"hi"}'
    (listed,) = (await ask(gateway, "GET", "/v1/predictions")).json["results"]
    assert (listed["webhook"], listed["webhook_events_filter"]) == (hook, ["completed"])
    assert "hooks.example.com" not in "".join(seen.body for seen in gateway.upstream.requests)


@pytest.mark.parametrize("spelled", ["plain", "slashes", "escapes", "bare base", "doubled base"])
async def test_gateway_file_link_in_an_input_is_rewritten_for_upstream(gateway: Stack, spelled: str):
    """Upstream cannot reach the gateway; it reads the file from its own store."""
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json
    link = file["urls"]["get"]
    text = {
        "plain": link,
        "slashes": link.replace("/", "\\/"),
        "escapes": "".join(f"\\u{ord(letter):04x}" for letter in link),
        "bare base": link.replace("/v1/", "/"),
        "doubled base": link.replace("/v1/", "/v1/v1/"),
    }[spelled]
    given = '{"prompt":"hi","n":1.50,"a":[{"b":"LINK"},"LINK"],"c":"x TEXT"}'.replace("TEXT", text)
    theirs = f"{gateway.upstream.base_url}/files/{file['id']}"
    assert await sent_up(gateway, given.replace("LINK", text)) == given.replace("LINK", theirs)


async def test_public_url_file_link_in_an_input_is_rewritten(open_gateway: OpenGateway):
    """The link has the public address, whichever way the create comes in."""
    # The body that goes up is looked at as a whole; upstream's word to the gateway itself would be in it too.
    async with open_gateway(server={"public_url": PUBLIC_URL}, upstream={"webhooks": "off"}) as stack:
        file = (await ask(stack, "POST", "/v1/files", **upload())).json
        assert file["urls"]["get"] == f"{PUBLIC_URL}/v1/files/{file['id']}"
        sent = await sent_up(stack, json.dumps({"prompt": "hi", "image": file["urls"]["get"]}))
        assert json.loads(sent)["image"] == f"{stack.upstream.base_url}/files/{file['id']}"


async def test_file_link_of_an_input_comes_back_as_it_was_given(gateway: Stack):
    """A page shows its input in the answer to the create, a poll and the list. A longer text stays as it is."""
    file = (await ask(gateway, "POST", "/v1/files", **upload())).json["urls"]["get"]
    given = {"prompt": f"see {file}", "image": file, "more": [{"image": file}]}
    made = await create(gateway, **given)
    joined = await create(gateway, **given)
    shown = await ask(gateway, "GET", f"/v1/predictions/{made.json['id']}")
    listed = await ask(gateway, "GET", "/v1/predictions")
    for prediction in (made.json, joined.json, shown.json, *listed.json["results"]):
        assert prediction["input"] == given


async def test_links_to_other_hosts_are_unchanged(gateway: Stack):
    """A file on another host is left as it is."""
    given = json.dumps({"prompt": "hi", "image": "https://cdn.example.com/v1/files/" + "a" * 48})
    assert await sent_up(gateway, given) == given


@pytest.mark.parametrize(
    "spell",
    [
        r"http:\\{host}\v1\files\{id}", "http:/{host}/v1/files/{id}", "http:{host}/v1/files/{id}", "http://{host}/v1/fi\tles/{id}",
        r"http://other.example\@{host}/v1/files/{id}", r"http://{host}\@other.example/v1/files/{id}",
        "http://{host}/v1/files/{id}/" + "x/../" * 400,
    ],
)  # fmt: skip
async def test_file_link_of_another_team_is_refused_as_any_parser_reads_it(gateway: Stack, spell: str):
    """Upstream would read the file with the account's rights, and may parse URLs as browsers do."""
    file_id = (await ask(gateway, "POST", "/v1/files", **upload())).json["id"]
    link = spell.format(host=gateway.upstream.base_url.split("/")[2], id=file_id)
    body = {"version": version_of(gateway.upstream, "acme/storyteller"), "input": {"prompt": "hi", "image": link}}
    reply = await ask(gateway, "POST", "/v1/predictions", key="beta", json=body)
    assert reply.status == 422, reply.text
    assert [field["field"] for field in reply.json["invalid_fields"]] == ["input.image"]
    assert not gateway.upstream.requests.count("predictions.create")
