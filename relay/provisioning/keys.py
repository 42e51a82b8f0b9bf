"""The endpoints for keys of people. The rules are those of `relay.accounts`."""

from typing import Annotated

import msgspec

from relay.accounts import keys
from relay.accounts.key_rules import rules
from relay.provisioning.call import Call, ListPage, Reply
from relay.provisioning.people import Text, found
from relay.provisioning.problems import not_found
from relay.provisioning.views import IssuedKey, KeyView, key_view
from relay.store.keys import Key, KeyRules, find_keys, list_keys

_Names = Annotated[list[Annotated[str, msgspec.Meta(max_length=128)]], msgspec.Meta(max_length=50)]
_Duration = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,8}[smhd]$")]


class _Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of a key. `models` end with * for a beginning; `limits` are such as
    requests=100/1d, tokens=1000000/5h or money=2.50/30d."""

    models: _Names = []
    addresses: _Names = []
    limits: _Names = []
    max_concurrency: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0


class NewKeyBody(_Rules, frozen=True, kw_only=True):
    """`expires`: a duration such as 30d."""

    name: Annotated[str, msgspec.Meta(max_length=100)] = ""
    expires: _Duration | None = None


class KeyChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A change of the fields that are given. `rules` replaces all rules."""

    name: Text | None = None
    disabled: bool | None = None
    rules: _Rules | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`grace`: how long the present key goes on working, or 0."""

    grace: Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,8}[smhd])$")] = keys.DEFAULT_GRACE


async def _key(call: Call) -> Key:
    """The key whose id is in the path. Raises Problem: 404."""
    for key in await find_keys(call.database, call.path[0]):
        if key.id == call.path[0]:
            return key
    raise not_found("key")


def _rules(stated: _Rules) -> KeyRules:
    return rules(stated.models, stated.addresses, stated.limits, stated.max_concurrency)


async def list_of_person(call: Call) -> Reply:
    """The keys of a person, oldest first."""
    user = await found(call)
    views = [key_view(one, call.now) for one in await list_keys(call.database, user.email)]
    return Reply(ListPage[KeyView](views, None))


async def create_key(call: Call) -> Reply:
    """Make a key for a person. It is shown in this answer alone."""
    user, new = await found(call), call.body
    options = keys.KeyOptions(new.name, new.expires, rules=_rules(new))
    issued = await keys.create(call.database, call.settings, user.email, options, now=call.now)
    return Reply(IssuedKey(issued.key.reveal(), key_view(issued.record, call.now)), 201)


async def show_key(call: Call) -> Reply:
    """One key."""
    return Reply(key_view(await _key(call), call.now))


async def change_key(call: Call) -> Reply:
    """Rename, disable or enable a key, or replace its rules."""
    key, change = await _key(call), call.body
    if change.rules is not None:
        key = await keys.set_rules(call.database, key.id, _rules(change.rules), call.now)
    if change.name is not None:
        key = await keys.rename(call.database, key.id, change.name, call.now)
    if change.disabled is not None:
        switch = keys.disable if change.disabled else keys.enable
        key = await switch(call.database, key.id, call.now)
    return Reply(key_view(key, call.now))


async def rotate_key(call: Call) -> Reply:
    """Put a new key in the place of one; its id, rules and usage stay."""
    key = await _key(call)
    issued = await keys.rotate(
        call.database, call.settings, key.id, grace=call.body.grace, now=call.now
    )
    return Reply(IssuedKey(issued.key.reveal(), key_view(issued.record, call.now)))


async def delete_key(call: Call) -> Reply:
    """Delete a key; its usage stays. Answers with the key as it was."""
    key = await _key(call)
    return Reply(key_view(await keys.delete(call.database, key.id, call.now), call.now))
