"""From an AID to a connection: resolve it, then reach whom the record names (spec 04 §9–10)."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from a2al_trio.dht import Dht
from a2al_trio.errors import (
    AttemptFailure,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    RecordInvalid,
    RecordNotFound,
)
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.reach import Reach
from a2al_trio.host.records import EndpointRecord
from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import EndpointPayload, WireDecodeError

__all__ = ["Outgoing"]


@attrs.frozen(kw_only=True)
class Outgoing:
    """Makes a host's outgoing connections of one kind, as `reach` offers them."""

    agents: AgentTable
    dht: Dht
    reach: Reach
    unix_time: Callable[[], float]

    async def resolve(self, peer: Address) -> EndpointRecord:
        """See `Host.resolve`.

        Only what we publish ourselves is answered without asking others; what we merely hold for them is one answer
        among theirs, and the newest wins (spec 04 §17 D17). So a record that led nowhere needs no forgetting: the next
        call asks again, and those who rely on us as its holder keep it (§17 D16).
        """
        _require(peer, Address, "an agent")
        try:
            record = await self.dht.resolve(peer)
        except RecordNotFound as error:
            if not self.dht.contacts():
                raise RecordNotFound(
                    f"cannot look up {peer}: this host knows no other node, for none of those it was to join through "
                    "has answered; check `bootstrap`, and configure turn_servers where UDP is blocked"
                ) from error
            raise RecordNotFound(f"{peer} has published nothing that could be found: {error}") from error
        try:
            return EndpointRecord(record, EndpointPayload.decode(record.payload))
        except WireDecodeError as error:
            raise RecordInvalid(f"the endpoint record of {peer} is malformed: {error}") from error

    async def open(
        self,
        peer: Address,
        *,
        at: SocketAddress | None = None,
        record: EndpointRecord | None = None,
        local: Address | None = None,
    ) -> AgentConnection:
        """See `Host.open_connection`."""
        _require(peer, Address, "an agent")
        self.agents.get(local)
        if at is not None:
            _require(at, SocketAddress, "`at`")
            return await self._dial(peer, at, local)
        if record is not None:
            record.check(peer, now=self.unix_time())
        found = record or await self.resolve(peer)
        return await self.reach.connect(peer, found.payload, local=local)

    async def _dial(self, peer: Address, at: SocketAddress, local: Address | None) -> AgentConnection:
        try:
            return await self.reach.dialler.dial(peer, at, local=local)
        except ConnectionLost as lost:
            raise ConnectError(f"cannot connect to {peer}", (AttemptFailure(str(at), lost),)) from lost


def _require(value: object, kind: type, what: str) -> None:
    """Texts are what people try first, and they would be found out only far from here."""
    if not isinstance(value, kind):
        name = kind.__name__
        fix = f"write {name}.parse({value!r})" if isinstance(value, str) else f"{type(value).__name__} will not do"
        raise ConfigurationError(f"{what} must be given as {name}; {fix}")
