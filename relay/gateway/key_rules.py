"""What the owner of a key has set for it: models, addresses, whether it is enabled.

Decides whether a request keeps to it, and the words of a refusal, which say what to do. A key's own
limits are compiled here; the ledger holds requests to them. Only keys with rules come here.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from relay.errors import FORBIDDEN, RelayError
from relay.gateway.catalog import Catalog
from relay.quota.plans import HOUR, Limit, Plan, further_limits
from relay.store.keys import KeyRules, LiveKey
from relay.wire.forwarded import UNIX, IpNetwork, address_of

_MAX_CACHED: Final = 4096
_MAX_SHOWN: Final = 10  # of a list, in an error
_DISABLED: Final = "This key is disabled. Enable it, or use another key of this account."


def refuse_disabled() -> RelayError:
    """The error for a disabled key."""
    return RelayError(FORBIDDEN, _DISABLED)


def check_address(rules: KeyRules, peer: str) -> None:
    """Raises RelayError: 403, the key may not be used from this address."""
    if rules.addresses is None or _is_within(rules.addresses, peer):
        return
    shown = "a Unix socket" if peer == UNIX else peer
    raise RelayError(
        FORBIDDEN,
        f"This key may not be used from {shown}. Its address list has "
        f"{_listed(rules.addresses)}; add this address, or use another key.",
    )


def check_model(caller: LiveKey, model: str, catalog: Catalog) -> None:
    """Check the model that is asked for: its id, or the name in relay.toml by which it is found.

    A caller can make up a name that fits a pattern there. So such a name is allowed only if the
    key has it as it stands, or everything that the pattern matches, or the model's id.

    Raises:
        RelayError: 403, the key may not use it.
    """
    rules = caller.rules
    if rules is None or rules.models is None or model in rules.models:
        return
    entry, model_id = catalog.entry(model), catalog.model_id(model)
    if allows_model(rules.models, entry, model_id):
        return
    meaning = "" if model == entry else f", which is {model_id!r} here"
    raise RelayError(
        FORBIDDEN,
        f"This key may not use the model {model!r}{meaning}. It may use {_listed(rules.models)}; "
        "ask for one of these, or use another key.",
        param="model",
    )


def allows_model(patterns: Sequence[str], *names: str) -> bool:
    """Whether one of the names fits one of the patterns; `*` at the end fits the rest of a name."""
    for pattern in patterns:
        for name in names:
            if name == pattern or (pattern.endswith("*") and name.startswith(pattern[:-1])):
                return True
    return False


@lru_cache(maxsize=_MAX_CACHED)
def own_limits(rules: KeyRules) -> Plan | None:
    """The limits that a key has of its own, for the ledger; None: it has none. The same rules give
    the same object."""
    if not rules.limits and not rules.max_concurrency:
        return None
    limits = [
        Limit(one.counts, one.amount, one.per, "smooth" if one.per <= HOUR else "window")
        for one in rules.limits or ()
    ]
    return further_limits("key", "this key", limits, rules.max_concurrency)


@lru_cache(maxsize=_MAX_CACHED)
def _networks(addresses: tuple[str, ...]) -> tuple[IpNetwork, ...]:
    return tuple([ipaddress.ip_network(one) for one in addresses])


@lru_cache(maxsize=_MAX_CACHED)
def _is_within(addresses: tuple[str, ...], peer: str) -> bool:
    address = address_of(peer)
    return address is not None and any(
        network.version == address.version and address in network
        for network in _networks(addresses)
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_SHOWN])
    return f"{shown} and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else shown
