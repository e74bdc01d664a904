"""Requests that pass through to upstream: cached metadata, writes of models and deployments, the account's own view.

The upstream path is built from the route's template and the parts that matched its patterns, so a request cannot reach
a path outside the route table.
"""

import asyncio
import gzip
import logging
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.domain import large_bytes, large_json, rendering
from gateway.domain import links as rewrite
from gateway.domain.create_body import parse_object
from gateway.domain.documents import Family
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.domain.upstream_response import Answer
from gateway.errors import Forbidden, NotFound, StoreUnavailable, UpstreamBroken
from gateway.http import aliases, base_url, content_coding, errors, response
from gateway.http.keys import CALLER, CLOCK, METADATA, OVERHEAD, POLICY, UPSTREAM, UPSTREAM_SECONDS, VERSIONS
from gateway.http.request_body import read, read_json
from gateway.models.metadata import Found, Question, Shown
from gateway.runtime.pauses import off_the_loop

logger = logging.getLogger(__name__)


def metadata(operation: str, template: str) -> Handler:
    """Return the handler of a read whose result is the same for every team and comes from the metadata cache."""
    names_model = "{owner}" in template

    async def handle(request: web.Request) -> web.StreamResponse:
        if names_model:
            aliases.follow_path(request, aliases.MODELS)
        metadata, question = request.app[METADATA], _question(request, operation, template)
        found = metadata.known(question)
        if found is None:
            clock = request.app[CLOCK]
            started = clock.monotonic()
            found = await metadata.ask(question)
            if not found.is_hit:
                request[UPSTREAM_SECONDS] = clock.monotonic() - started
                request[OVERHEAD] = "relay"
        if not found.entry.is_learned:
            found.entry.is_learned = await _learn_versions(request, operation, found.entry.answer)
        return await _respond(request, found)

    return handle


async def search_models(request: web.Request) -> web.StreamResponse:
    """Handle `QUERY /models`. Clients send the search text raw, as a quoted string, or as JSON.

    See docs/replicate-api.md, Routes.
    """
    body = await read(request)
    content_type = "application/json" if request.content_type == "application/json" else "text/plain"
    question = Question("models.search", "QUERY", "/models", request.rel_url.raw_query_string, body, content_type)
    return await _respond(request, await request.app[METADATA].ask(question))


def _question(request: web.Request, operation: str, template: str) -> Question:
    return Question(operation, "GET", template.format_map(request.match_info), request.rel_url.raw_query_string)


async def _respond(request: web.Request, found: Found) -> web.StreamResponse:
    entry, given = found.entry, request.headers
    if entry.answer.status != 200:
        headers = {**entry.headers, "Cache-Status": _cache_status(found)}
        return web.Response(status=entry.answer.status, headers=headers, body=entry.answer.body)
    shown = await entry.shown(base_url.base_of(request))
    if shown.tag in given.get("If-None-Match", ""):
        headers = {name: value for name, value in _fields(found, shown).items() if name != "content-type"}
        return web.Response(status=304, headers=headers)
    accepted = given.get("Accept-Encoding")
    coding = content_coding.choose(accepted, len(shown.body)) if accepted else None
    if coding is None:
        return response.respond(request, shown.body, _fields(found, shown))
    # In a thread: a list of models is megabytes. Not by aiohttp, which would do it after the room for it is counted.
    fields = _fields(found, shown, coding.value)
    if coding is web.ContentCoding.deflate:
        return response.respond(request, await asyncio.to_thread(zlib.compress, shown.body), fields)
    body = shown.gzipped
    if body is None:
        body = await asyncio.to_thread(gzip.compress, shown.body, 6, mtime=0)
        shown.note_gzipped(body)
    return response.respond(request, body, fields)


def _fields(found: Found, shown: Shown, coding: str | None = None) -> response.Fields:
    """Return the headers of a 200. Those of a hit are made once a second."""
    key = (round(found.age), round(found.ttl), coding) if found.is_hit else None
    if key is not None and shown.fields_key == key:
        assert isinstance(shown.fields, response.Fields)
        return shown.fields
    made = {
        **found.entry.headers,
        "Cache-Status": _cache_status(found),
        "ETag": f'W/"{shown.tag}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Authorization",
    }
    if found.is_hit:
        made["Age"] = str(round(found.age))
    if coding is not None:
        made["Content-Encoding"] = coding
    fields = response.Fields(made)
    if key is not None:
        shown.fields, shown.fields_key = fields, key
    return fields


def _cache_status(found: Found) -> str:
    if found.is_hit:
        return f"replicate-gateway; hit; ttl={round(found.ttl)}"
    return _miss_status(found, found.entry.answer)


def _miss_status(found: Found, answer: Answer) -> str:
    if not found.ttl:
        return "replicate-gateway; fwd=bypass; detail=metadata-ttl-0"
    return "replicate-gateway; fwd=miss" + ("; stored" if answer.status == 200 else "")


class _Version(msgspec.Struct):
    id: str


class _Model(msgspec.Struct):
    latest_version: _Version | None = None


class _Versions(msgspec.Struct):
    results: list[_Version]


async def _learn_versions(request: web.Request, operation: str, answer: Answer) -> bool:
    """Record which model each returned version belongs to; a create by version id does not name its model.

    Return whether nothing is left to record. See docs/architecture.md, Create.
    """
    if not answer.is_ok or operation not in ("models.get", "models.versions.list", "models.versions.get"):
        return True
    model = f"{request.match_info['owner']}/{request.match_info['name']}"
    try:
        match operation:
            case "models.get":
                latest = msgspec.json.decode(answer.body, type=_Model).latest_version
                versions = [latest] if latest else []
            case "models.versions.list":
                versions = msgspec.json.decode(answer.body, type=_Versions).results
            case _:
                versions = [msgspec.json.decode(answer.body, type=_Version)]
    except (msgspec.MsgspecError, RecursionError):
        return True
    try:
        for version in versions:
            await request.app[VERSIONS].learn(version.id, model)
    except StoreUnavailable as exc:
        # The read has succeeded. The next one records them.
        logger.warning("versions could not be recorded", extra={"model": model, "reason": exc.detail})
        return False
    return True


def write(operation: str, method: str, template: str, *, target_of: Callable[[web.Request], str | None]) -> Handler:
    """Return the handler of a write. It is sent once, without retries, and upstream's response is passed on.

    `target_of` returns the target that the path names, or `None`. A target that the caller may not run is a 404.
    """

    async def handle(request: web.Request) -> web.Response:
        caller = request[CALLER]
        target = target_of(request)
        if target is not None and not caller.may_run(target):
            raise NotFound
        body = await _read_object(request) if method in ("POST", "PATCH") else None
        if body is not None:
            _check_target(request, caller, body)
        clock = request.app[CLOCK]
        started = clock.monotonic()
        try:
            answer = await request.app[UPSTREAM].send(operation, method, template.format_map(request.match_info), body)
        finally:
            # Also without a response: upstream may have carried out the write.
            request.app[METADATA].forget()
            request[UPSTREAM_SECONDS] = clock.monotonic() - started
        request[OVERHEAD] = "relay"
        return errors.pass_on(answer)

    return handle


async def _read_object(request: web.Request) -> bytes:
    """Read a JSON object and encode it again: upstream gets exactly what was checked, without duplicate keys."""
    return msgspec.json.encode(parse_object(await read_json(request)))


class _TargetFields(msgspec.Struct):
    owner: str | None = None
    name: str | None = None
    model: str | None = None


def _check_target(request: web.Request, caller: Caller, body: bytes) -> None:
    """Raise `Forbidden` if the body names a model or a deployment that the caller may not run."""
    if caller.may_run_anything:
        return
    try:
        target = msgspec.json.decode(body, type=_TargetFields)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise Forbidden("Your key is limited to certain models. owner, name and model must be strings.") from exc
    if target.model is not None:
        request.app[POLICY].check_model(caller, target.model)
    if target.owner is not None and target.name is not None:
        request.app[POLICY].check_model(caller, f"{target.owner}/{target.name}")


def path_target(request: web.Request) -> str:
    """Return the `owner/name` of the path."""
    return f"{request.match_info['owner']}/{request.match_info['name']}"


@contextmanager
def parsing_upstream() -> Iterator[None]:
    """Raise `UpstreamBroken` for errors in parsing upstream's response."""
    try:
        yield
    except (msgspec.MsgspecError, KeyError, UnicodeError, RecursionError) as exc:
        raise UpstreamBroken("Replicate's response could not be parsed.") from exc


class _Deployment(msgspec.Struct):
    owner: str
    name: str


async def list_deployments(request: web.Request) -> web.Response:
    """Handle `GET /deployments`: those that the caller may run, or all for keys with the scope `account`."""
    caller = request[CALLER]
    question = _question(request, "deployments.list", "/deployments")
    found = await request.app[METADATA].ask(question, fresh=True)
    answer, page = found.entry.answer, found.entry.page
    if page is None or not answer.is_ok:
        return errors.pass_on(answer)
    kept = []
    with parsing_upstream():
        for result in msgspec.json.decode(page.fields["results"], type=list[msgspec.Raw]):
            deployment = msgspec.json.decode(result, type=_Deployment)
            if caller.may(Scope.ACCOUNT) or caller.may_run(f"{deployment.owner}/{deployment.name}"):
                kept.append(result)
    fields = page.fields | {"results": msgspec.Raw(msgspec.json.encode(kept))}
    body = rewrite.PageParts(fields, page.links).render(base_url.base_of(request))
    return web.Response(body=body, headers=answer.shown_headers)


async def get_deployment(request: web.Request) -> web.Response:
    """Handle `GET /deployments/{owner}/{name}`.

    Raise `NotFound` if the caller may neither run it nor see the whole account.
    """
    caller = request[CALLER]
    aliases.follow_path(request, aliases.DEPLOYMENTS)
    if not caller.may(Scope.ACCOUNT) and not caller.may_run(path_target(request)):
        raise NotFound
    question = _question(request, "deployments.get", "/deployments/{owner}/{name}")
    return errors.pass_on((await request.app[METADATA].ask(question, fresh=True)).entry.answer)


async def get_account(request: web.Request) -> web.Response:
    """Handle `GET /account`: show the caller's team, or upstream's account to keys with the scope `account`."""
    caller = request[CALLER]
    if caller.may(Scope.ACCOUNT):
        return errors.pass_on(await request.app[UPSTREAM].read("account.get", "/account"))
    body = {"type": "organization", "username": caller.team.name, "name": caller.team.name, "github_url": None}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


async def unknown_prediction(request: web.Request, family: Family, *, cancel: bool = False) -> web.Response:
    """Get or cancel at upstream a prediction that the gateway has no record of. The caller has the scope `account`."""
    path = f"/{family}/{request.match_info['id']}"
    upstream = request.app[UPSTREAM]
    if cancel:
        answer = await upstream.send(f"{family}.cancel", "POST", f"{path}/cancel")
    else:
        answer = await upstream.read(f"{family}.get", path)
    if not answer.is_ok:
        return errors.pass_on(answer)
    render = partial(rendering.render_foreign, answer.body, base_url.base_of(request), family)
    with parsing_upstream():
        body = await off_the_loop(answer.body, render)
    return web.Response(body=body, content_type="application/json")


async def account_files(request: web.Request) -> web.Response:
    """Pass on upstream's list of files. The caller has the scope `account`."""
    return await _account_page(request, "files", rewrite.file_document)


async def account_list(request: web.Request, family: Family) -> web.Response:
    """Pass on upstream's list of predictions or trainings. The caller has the scope `account`."""
    return await _account_page(request, family, lambda document, base: rendering.render_foreign(document, base, family))


async def _account_page(request: web.Request, family: str, render: Callable[[bytes, str], bytes]) -> web.Response:
    query = request.rel_url.raw_query_string
    answer = await request.app[UPSTREAM].read(f"{family}.list", f"/{family}", query=query)
    if not answer.is_ok:
        return errors.pass_on(answer)
    show = partial(_shown_page, answer.body, base_url.base_of(request), render)
    with parsing_upstream():
        body = await off_the_loop(answer.body, show)
    return errors.pass_on(answer) if body is None else web.Response(body=body, headers=answer.shown_headers)


def _shown_page(body: bytes, base: str, render: Callable[[bytes, str], bytes]) -> bytes | None:
    """Return a page of upstream's as the gateway shows it; `None` if it is no page."""
    page = rewrite.split_page(body)
    if page is None:
        return None
    results = large_json.items(large_bytes.copied(page.fields["results"]))
    shown = [msgspec.Raw(render(large_bytes.copied(result), base)) for result in results]
    return rewrite.PageParts(page.fields | {"results": large_json.encode_items(shown)}, page.links).render(base)
