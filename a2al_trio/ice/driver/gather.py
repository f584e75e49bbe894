"""Gathering: where might we be reached? (RFC 8445 §5.1.1, spec 06 D12)

Every source stands alone: a STUN or TURN server that is dead, slow or refuses costs nothing but itself. All STUN
servers of a family are asked from the same sockets that will do the checks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from a2al_trio.errors import A2alError, AttemptFailure
from a2al_trio.ice.candidate import Candidate, CandidateType, candidate_priority, foundation_of
from a2al_trio.ice.driver.network import IceNetwork
from a2al_trio.ice.driver.relay import RelaySocket
from a2al_trio.ice.errors import IceError, StunDecodeError
from a2al_trio.ice.servers import ServerAddress
from a2al_trio.ice.stun import StunClass, StunMethod, decode_stun, encode_stun
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit

__all__ = ["Base", "Gatherer"]

_STUN_GAPS: Final = (0.2, 0.4, 0.8, 1.6, 2.0)
"""Seconds between the five requests to one server; about 5 s in all (spec 06 §11.1)."""

_RESOLVE_LIMIT: Final = 5.0
_MAX_HOSTS: Final = 8


@attrs.frozen(eq=False)
class Base:
    """Something to send from: a socket of ours, or a relay."""

    candidate: Candidate
    socket: DatagramSocket
    relay: RelaySocket | None = None

    @property
    def address(self) -> SocketAddress:
        """The address the candidate has."""
        return self.candidate.address


@attrs.define(eq=False)
class _Probe:
    base: Base
    server: SocketAddress
    answered: trio.Event = attrs.Factory(trio.Event)


class Gatherer:
    """Finds host and server-reflexive candidates, and hands each to `found` the moment it is known.

    `failures` names the sources that gave nothing, and why.
    """

    def __init__(self, network: IceNetwork, found: Callable[[Candidate], None]) -> None:
        self._network = network
        self._found = found
        self._probes: dict[bytes, _Probe] = {}
        self._addresses: set[SocketAddress] = set()
        self._preference = 65535
        self.failures: list[AttemptFailure] = []

    def failed(self, source: str, error: BaseException) -> None:
        """Note a source that gave nothing."""
        self.failures.append(AttemptFailure(source, error))

    def bind_hosts(self) -> list[Base]:
        """Bind a socket to every address of the host, IPv6 first (RFC 8421 §4); what cannot be bound is skipped."""
        bases = []
        hosts = sorted(self._network.hosts(), key=lambda host: ":" not in host)
        for host in hosts[:_MAX_HOSTS]:
            base = self.bind_host(host)
            if base is not None:
                bases.append(base)
        return bases

    def bind_host(self, host: str) -> Base | None:
        """Bind a socket to one address."""
        try:
            socket = self._network.bind(host)
        except (A2alError, OSError) as error:
            self.failed(f"host {host}", error)
            return None
        kind = CandidateType.HOST
        address = SocketAddress(host, socket.local_address.port)
        candidate = Candidate(kind, address, self._priority(kind), foundation_of(kind, host))
        self._addresses.add(address)
        return Base(candidate, socket)

    def _priority(self, kind: CandidateType) -> int:
        """Every candidate gets a local preference of its own (RFC 8445 §5.1.2.1)."""
        self._preference -= 1
        return candidate_priority(kind, self._preference)

    def relay_candidate(self, relay: RelaySocket) -> Base:
        """Return the base that a relay is."""
        kind, address = CandidateType.RELAYED, relay.local_address
        related = SocketAddress("::" if address.is_ipv6 else "0.0.0.0", 9)
        foundation = foundation_of(kind, address.host, str(relay.server))
        return Base(Candidate(kind, address, self._priority(kind), foundation, related), relay, relay)

    async def ask(self, server: ServerAddress, bases: list[Base]) -> None:
        """Ask one STUN server from every base of its address family."""
        name = f"stun:{server.host}:{server.port}"
        try:
            with trio.fail_after(_RESOLVE_LIMIT):
                targets = await self._network.resolve(server.host, server.port)
        except (OSError, trio.TooSlowError) as error:
            self.failed(name, error)
            return
        pairs = [
            (base, target)
            for target in _one_of_each_family(targets)
            for base in bases
            if base.address.is_ipv6 == target.is_ipv6
        ]
        answers = [False] * len(pairs)

        async def probe(index: int, base: Base, target: SocketAddress) -> None:
            answers[index] = await self._probe(base, target)

        async with trio.open_nursery() as nursery:
            for index, (base, target) in enumerate(pairs):
                nursery.start_soon(probe, index, base, target)
        if not any(answers):
            self.failed(name, IceError("no answer"))

    async def _probe(self, base: Base, target: SocketAddress) -> bool:
        transaction_id = os.urandom(12)
        request = encode_stun(StunClass.REQUEST, StunMethod.BINDING, transaction_id, fingerprint=False)
        probe = self._probes[transaction_id] = _Probe(base, target)
        try:
            for gap in _STUN_GAPS:
                base.socket.send_nowait(Transmit(request, len(request), target))
                with trio.move_on_after(gap):
                    await probe.answered.wait()
                    return True
        except trio.ClosedResourceError:
            return False
        finally:
            del self._probes[transaction_id]
        return False

    def receive(self, base: Base, data: memoryview, source: SocketAddress) -> bool:
        """Take an answer to a probe; False if the datagram is none."""
        probe = self._probes.get(bytes(data[8:20]))
        if probe is None or probe.base is not base or probe.server != source:
            return False
        try:
            message = decode_stun(data)
        except StunDecodeError:
            return False
        mapped = message.mapped_address
        if message.message_class is not StunClass.SUCCESS or mapped is None:
            return False
        probe.answered.set()
        if mapped not in self._addresses:
            self._addresses.add(mapped)
            kind = CandidateType.SERVER_REFLEXIVE
            foundation = foundation_of(kind, mapped.host, base.address.host)
            self._found(Candidate(kind, mapped, self._priority(kind), foundation, base.address))
        return True


def _one_of_each_family(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    chosen: dict[bool, SocketAddress] = {}
    for address in addresses:
        chosen.setdefault(address.is_ipv6, address)
    return list(chosen.values())
