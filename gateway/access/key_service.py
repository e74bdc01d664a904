"""Creates, lists, changes, rotates and revokes keys: for the command line, operators and the holders of keys.

`rules/grants.py` says who may do what. Every change is in the audit log.
"""

import secrets
from collections.abc import Callable, Collection, Sequence

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from gateway.access.authentication import AccessSettings
from gateway.access.rules import api_keys, audit_text, grants, key_requests, key_rows
from gateway.access.rules.grants import Grants
from gateway.access.rules.key_requests import KeyRequest
from gateway.access.rules.key_rows import IssuedRow, KeyRow, KeyRows, RevokedRow
from gateway.domain import times
from gateway.domain.audit import Actor, by_key, key_of
from gateway.domain.limits import NO_LIMITS, Allowance
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import KeyPlace, Keys
from gateway.domain.records import Key
from gateway.domain.scopes import Scope, narrow, normal_origin
from gateway.domain.teams import Caller, Team, Teams
from gateway.errors import Conflict, Forbidden, InvalidField, NotFound, Unauthenticated, Unprocessable
from gateway.runtime.live import LiveSettings

_NO_KEY = "There is no such key."
_IN_CONFIG = "This key is defined in the config. Change it there."
_NOT_YOURS = "You may not change this key, because you could not create it: "


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a change. `caller` is the holder of a key, or the lead of a team; `None` for operators."""

    actor: Actor
    caller: Caller | None = None
    is_lead: bool = False
    """Whether an issuer says that the caller leads its team: there is no key behind it."""

    @classmethod
    def of_caller(cls, caller: Caller) -> "Authority":
        """Return the authority of a key's holder."""
        return cls(actor=by_key(caller.key_id), caller=caller)


class KeyService:
    """The keys of the config and of the store, and changes of the latter."""

    def __init__(
        self,
        store: Keys,
        teams: LiveSettings[Teams],
        settings: LiveSettings[AccessSettings],
        clock: Clock,
        *,
        on_changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take `on_changed`, which is called with the id of each key that is changed here."""
        self._store = store
        self._teams = teams
        self._settings = settings
        self._clock = clock
        self._on_changed = on_changed

    async def create(self, authority: Authority, request: KeyRequest) -> IssuedRow:
        """Create a key. Raise `Unprocessable` naming the fields that are wrong or ask for too much, or `Conflict`."""
        now = self._clock.now()
        allowed = await self._grants(authority, self._team_of(authority, request))
        _refuse_invalid(request, now)
        minted = api_keys.new_key(secrets.token_bytes)
        key = replace(
            _applied(request, grants.new_key(allowed)),
            id=minted.id,
            sha256=minted.sha256,
            last_four=api_keys.last_four(minted.key),
            created_at=now,
            created_by=_name_of(authority.actor),
        )
        key = key if key.name else replace(key, name=key.id)
        if fields := grants.left_open(allowed, key) or grants.beyond(allowed, key):
            raise Unprocessable(fields)
        self._check_name(key)
        await self._store.add_key(key, actor=authority.actor, most=allowed.team.max_issued_keys, holder=allowed.holder)
        return key_rows.issued(key_rows.row_of(key, now), minted.key)

    async def list(
        self,
        *,
        team: str | None = None,
        created_by: str | None = None,
        limit: int = 100,
        older_than: KeyPlace | None = None,
    ) -> KeyRows:
        """List the keys of one team, or of all; with `created_by`, only those that this actor has created."""
        wanted, creator = limit + 1, None if created_by is None else _name_of(created_by)
        found = await self._store.newest_keys(team=team, created_by=creator, limit=wanted, older_than=older_than)
        if len(found) < wanted and created_by is None:
            # Keys of the config have no time, so they come after all others.
            of_config = [
                key
                for key in self._settings.value.keys.values()
                if team in (None, key.team) and (older_than is None or (key.created_at, key.id) < older_than)
            ]
            found += sorted(of_config, key=lambda key: key.id, reverse=True)
        shown, now = found[:limit], self._clock.now()
        uses = await self._store.key_uses([key.id for key in shown])
        allowances = self._settings.value.allowances
        teams = self._teams.value
        rows = [
            key_rows.row_of(
                key,
                now,
                used_at=uses.get(key.id),
                allowance=allowances.get(key.id),
                has_team=key.team in teams,
            )
            for key in shown
        ]
        last = shown[-1] if len(found) > limit else None
        return KeyRows(keys=rows, next=None if last is None else (last.created_at, last.id))

    async def with_limits(self, team: str | None, most: int) -> Sequence[tuple[Key, Allowance]]:
        """Return the valid keys with limits, of one team or of all: those of the config, and of the `most` newest."""
        settings, now = self._settings.value, self._clock.now()
        issued = await self._store.newest_keys(team=team, created_by=None, limit=most, older_than=None)
        of_config = [key for key in settings.keys.values() if team in (None, key.team)]
        keys = [key for key in (*of_config, *issued) if api_keys.is_valid(key, now)]
        limited = [(key, settings.allowances.get(key.id) or key.allowance or NO_LIMITS) for key in keys]
        return [(key, allowance) for key, allowance in limited if not allowance.is_unlimited]

    async def names_of(self, actors: Collection[str], team: str | None) -> dict[str, str]:
        """Return the names of the keys that are among the actors, of one team or of all."""
        names = {}
        for actor in dict.fromkeys(actors):
            key_id = key_of(actor)
            if key_id is not None:
                key = self._settings.value.keys.get(key_id) or await self._store.key(key_id)
                if key is not None and team in (None, key.team):
                    names[actor] = key.name
        return names

    async def change(self, authority: Authority, key_id: str, request: KeyRequest) -> KeyRow:
        """Change a key. Raise `NotFound`, `Conflict`, `Forbidden`, or `Unprocessable` naming the fields."""
        now = self._clock.now()
        if request.team is not UNSET:
            raise Unprocessable.field("team", "the team of a key cannot be changed")
        key = await self._manageable(authority, key_id)
        allowed = await self._grants(authority, self._team(key))
        _refuse_invalid(request, now)

        def changed(old: Key) -> Key:
            _refuse_beyond(allowed, old)
            new = _applied(request, old)
            if old.origins and not new.origins:
                # Every visitor of a page knows its secret.
                raise Unprocessable.field("origins", "a key with origins cannot become one without")
            if fields := grants.left_open(allowed, new, old):
                raise Unprocessable(fields)
            _refuse_new(allowed, old, new)
            return new

        renamed = _applied(request, key)
        if renamed.name != key.name:
            self._check_name(renamed)
        found = await self._store.change_key(
            key_id, key.team, changed, now, actor=authority.actor, holder=allowed.holder
        )
        if found is None:
            raise NotFound(_NO_KEY)
        self._on_changed(key_id)
        return await self._row(found)

    async def rotate(self, authority: Authority, key_id: str, overlap_seconds: float) -> tuple[IssuedRow, KeyRow]:
        """Replace a key by one with the same rights and lifetime. Return the new key and the old one.

        The old key expires after `overlap_seconds`. Raise `NotFound`, `Conflict` or `Forbidden`.
        """
        now = self._clock.now()
        old = await self._manageable(authority, key_id)
        allowed = await self._grants(authority, self._team(old))
        _refuse_beyond(allowed, old)
        minted = api_keys.new_key(secrets.token_bytes)
        expires_at = None if old.expires_at is None else now + (old.expires_at - old.created_at)
        if allowed.expires_at is not None:
            expires_at = min(allowed.expires_at, expires_at or allowed.expires_at)
        successor = replace(
            old,
            id=minted.id,
            name=minted.id if old.name == old.id else old.name,
            sha256=minted.sha256,
            last_four=api_keys.last_four(minted.key),
            created_at=now,
            created_by=_name_of(authority.actor),
            expires_at=expires_at,
            revoked_at=None,
        )
        ending = await self._store.rotate_key(
            key_id,
            successor,
            now + overlap_seconds,
            actor=authority.actor,
            most=allowed.team.max_issued_keys,
            holder=allowed.holder,
        )
        if ending is None:
            raise Conflict(f"The key {key_id} was revoked.")
        self._on_changed(key_id)
        return key_rows.issued(key_rows.row_of(successor, now), minted.key), await self._row(ending)

    async def revoke(self, authority: Authority, key_id: str) -> RevokedRow:
        """Revoke a key at once. One that was revoked before stays as it is. Raise `NotFound` or `Forbidden`.

        The keys that its holder created with it stay valid. The row has their number.
        """
        key = await self._manageable(authority, key_id)
        if authority.caller is not None:
            allowed = await self._grants(authority, self._team(key))
            # Also a key that was created before its team was narrowed: its secret may be known.
            if fields := grants.beyond_as_used(allowed, key):
                raise _not_yours(fields)
        revoked = await self._store.revoke_key(key_id, self._clock.now(), actor=authority.actor)
        if revoked is None:
            raise NotFound(_NO_KEY)
        self._on_changed(key_id)
        left = await self._store.valid_keys_of(by_key(key_id), self._clock.now())
        return key_rows.revoked(await self._row(revoked), left)

    async def _row(self, key: Key) -> KeyRow:
        uses = await self._store.key_uses([key.id])
        has_team = key.team in self._teams.value
        return key_rows.row_of(key, self._clock.now(), used_at=uses.get(key.id), has_team=has_team)

    def _team_of(self, authority: Authority, request: KeyRequest) -> Team:
        """Return the team of a new key."""
        if authority.caller is not None:
            team = authority.caller.team
            if request.team not in (UNSET, team.name):
                raise Unprocessable.field("team", "a key can create keys of its own team only")
            return team
        if request.team is UNSET:
            raise Unprocessable.field("team", "team is required", "required")
        found = self._teams.value.get(request.team)
        if found is None:
            known = ", ".join(sorted(self._teams.value)[:50]) or "none"
            raise Unprocessable.field("team", f"no team {request.team[:100]!r} in the config (teams: {known})")
        return found

    def _team(self, key: Key) -> Team:
        return self._team_by_name(key.team)

    def _team_by_name(self, name: str) -> Team:
        team = self._teams.value.get(name)
        if team is None:
            raise Conflict(f"Team {name} is no longer in the config, so its keys do not work.")
        return team

    async def _grants(self, authority: Authority, team: Team) -> Grants:
        caller = authority.caller
        if caller is None:
            return grants.of_operator(team)
        if authority.is_lead:
            return grants.of_lead(self._team_by_name(caller.team.name))
        if caller.is_public or Scope.KEYS not in caller.scopes:
            raise Forbidden("Your key may not manage keys.")
        own = self._settings.value.keys.get(caller.key_id) or await self._store.key(caller.key_id)
        if own is None or not api_keys.is_valid(own, self._clock.now()):
            raise Unauthenticated("Your key is no longer valid.")
        holders = self._teams.value.get(own.team)
        if holders is None or Scope.KEYS not in narrow(holders.scopes, own.scopes) or own.origins:
            # It was changed since this request was authenticated.
            raise Forbidden("Your key may not manage keys.")
        allowance = self._settings.value.allowances.get(own.id) or own.allowance or NO_LIMITS
        allowed = grants.of_holder(holders, own, allowance)
        return allowed if own.id in self._settings.value.keys else replace(allowed, holder=own)

    async def _manageable(self, authority: Authority, key_id: str) -> Key:
        """Return a key of the store that the authority can see."""
        if authority.caller is None and key_id in self._settings.value.keys:
            raise Conflict(_IN_CONFIG)
        key = await self._store.key(key_id)
        if key is None or (authority.caller is not None and key.team != authority.caller.team.name):
            raise NotFound(_NO_KEY)
        return key

    def _check_name(self, key: Key) -> None:
        if any(each.team == key.team and each.name == key.name for each in self._settings.value.keys.values()):
            raise Conflict(f"Team {key.team} already has a key named {key.name} in the config.")


def _refuse_invalid(request: KeyRequest, now: float) -> None:
    if fields := key_requests.invalid_fields(request, now):
        raise Unprocessable(fields)


def _refuse_beyond(allowed: Grants, key: Key) -> None:
    """Raise `Forbidden` for a key that a holder could not create."""
    if not allowed.is_operator and (fields := grants.beyond(allowed, key)):
        raise _not_yours(fields)


def _not_yours(fields: list[InvalidField]) -> Forbidden:
    return Forbidden(_NOT_YOURS + "; ".join(f"{field.field}: {field.description}" for field in fields[:3]))


def _refuse_new(allowed: Grants, old: Key, new: Key) -> None:
    """Raise `Unprocessable` for what a change asks too much. What was too much before can stay."""
    before = {field.field for field in grants.beyond(allowed, old)}
    if fields := [
        each for each in grants.beyond(allowed, new) if each.field not in before or _differs(each.field, old, new)
    ]:
        raise Unprocessable(fields)


def _differs(field: str, old: Key, new: Key) -> bool:
    name = "allowance" if field.startswith("limits") else field
    return bool(getattr(old, name) != getattr(new, name))


def _applied(request: KeyRequest, key: Key) -> Key:
    """Return a key with what a valid request says."""
    set_: dict[str, object] = {"allowance": key_requests.allowance_of(request.limits, key.allowance)}
    if request.name is not UNSET:
        set_["name"] = request.name
    if request.scopes is not UNSET:
        set_["scopes"] = _unique(request.scopes)
    if request.models is not UNSET:
        set_["models"] = _unique(request.models)
    if request.origins is not UNSET:
        set_["origins"] = None if request.origins is None else _unique(tuple(map(normal_origin, request.origins)))
    if request.expires_at is not UNSET:
        set_["expires_at"] = None if request.expires_at is None else times.parse(request.expires_at)
    return replace(key, **set_)


def _name_of(actor: str) -> str:
    """Return an actor as the audit log has it."""
    return audit_text.clean_text(actor, audit_text.LONGEST_NAME)


def _unique(wanted: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if wanted is None else tuple(dict.fromkeys(wanted))
