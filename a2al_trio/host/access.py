"""Who may call which agent: rules for `Host.access`, which hold for all that a host serves.

How much a caller may take is bounded beside this, see `callers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Address

__all__ = ["AccessByAgent", "AccessList", "AccessRule"]

AccessRule: TypeAlias = Callable[[Address, Address | None, Sequence[str]], bool]
"""Whether (local agent, remote agent, tokens) may open a stream; a plain function that does not wait.

The remote agent is None for an anonymous caller, as there are over HTTP/3 where an agent's `WebAgent` allows it.
"""


def _some_or_all(allowed: Iterable[Address] | None) -> frozenset[Address] | None:
    return None if allowed is None else frozenset(allowed)


def _addresses(addresses: Iterable[Address]) -> frozenset[Address]:
    return frozenset(addresses)


def _texts(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(texts)


@attrs.frozen(kw_only=True)
class AccessList:
    """Lets callers open streams by their AID: `host.access = AccessList(allow=[...])`.

    Who is refused has its stream reset with code 0x41 (spec 08 §4). `deny` wins over `allow`.
    """

    allow: frozenset[Address] | None = attrs.field(default=None, converter=_some_or_all)
    """Callers that are let in; None lets everybody in who proves an AID."""

    deny: frozenset[Address] = attrs.field(default=(), converter=_addresses)
    """Callers that are refused."""

    tokens: frozenset[str] = attrs.field(default=(), converter=_texts)
    """Tickets that let in a caller who is not in `allow`; callers show them by `open_service_stream(token)`."""

    anonymous: bool = False
    """Whether callers without an AID are let in, such as browsers, where the agent's `WebAgent` lets them connect."""

    def __attrs_post_init__(self) -> None:
        if self.tokens and self.allow is None:
            raise ConfigurationError("tokens let nobody in while allow is None, which lets in all; set allow=()")

    def __call__(self, local: Address, remote: Address | None, tokens: Sequence[str]) -> bool:
        """Whether `remote` may open a stream to `local`."""
        if remote is None:
            return self.anonymous
        if remote in self.deny:
            return False
        return self.allow is None or remote in self.allow or not self.tokens.isdisjoint(tokens)


@attrs.frozen
class AccessByAgent:
    """A rule for each agent of a host: `host.access = AccessByAgent({agent: AccessList(allow=[...])})`."""

    rules: Mapping[Address, AccessRule]
    """Who may call which of our agents."""

    otherwise: AccessRule = attrs.field(factory=AccessList)
    """Who may call the others; without it, whoever proves an AID."""

    def __call__(self, local: Address, remote: Address | None, tokens: Sequence[str]) -> bool:
        """Whether `remote` may open a stream to `local`."""
        return self.rules.get(local, self.otherwise)(local, remote, tokens)
