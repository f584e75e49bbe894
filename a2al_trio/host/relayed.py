"""A host where no UDP passes: everything runs over a TURN relay that is reached by TCP or TLS (RFC 8656 §2.1).

The relayed address takes the place of the UDP socket. The relay lets in only those we have sent to, so that others
reach the host as one behind a restricted NAT: by a call through a hub.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from a2al_trio.errors import A2alError, AttemptFailure, ConnectError
from a2al_trio.ice import IceConfig, IceNetwork, RelaySocket, TurnServer, open_relay
from a2al_trio.identity import Identity
from a2al_trio.nat.probe import open_probe_socket
from a2al_trio.nat.stun_client import StunFailed, open_stun_client
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.buffer import ReceiveBuffer
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.net.mux import Mux, open_mux_over
from a2al_trio.scopes import open_service_nursery

__all__ = ["RelayedSocket", "open_relayed_mux", "udp_passes"]

logger = logging.getLogger(__name__)

STUN_PORT = 3478
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0


async def udp_passes(config: IceConfig, network: IceNetwork, identity: Identity, nodes: Sequence[str]) -> bool:
    """Whether anybody answers over UDP: a STUN or TURN server of the configuration, or one of `nodes` (`host:port`).

    Takes 5 s if nobody does. Nodes are asked in the name of `identity`, as the host itself would.
    """
    answered = False

    async def ask(question: Callable[[SocketAddress], Awaitable[object]], host: str, port: int) -> None:
        nonlocal answered
        try:
            for address in await network.resolve(host, port):
                if not address.is_ipv6 and await question(address):
                    answered = True
                    nursery.cancel_scope.cancel()
        except (StunFailed, OSError):
            return

    socket = network.bind("0.0.0.0")
    try:
        async with (
            open_stun_client(socket) as stun,
            open_probe_socket(network.bind("0.0.0.0"), identity) as probe,
            trio.open_nursery() as nursery,
        ):
            servers = {(server.host, server.port) for server in config.stun_addresses()}
            for host, port in servers | {(server.address.host, STUN_PORT) for server in config.turn_servers}:
                nursery.start_soon(ask, stun.query, host, port)
            for node in nodes:
                host, _, text = node.rpartition(":")
                nursery.start_soon(ask, probe.ping, host.strip("[]"), int(text))
    finally:
        socket.close()
    return answered


class RelayedSocket:
    """A `BufferedSocket` at a relay, which is allocated anew when it is lost; made by `open_relayed_mux`."""

    def __init__(self, relay: RelaySocket) -> None:
        self._relay = relay
        self._batch: list[Received] = []
        self._waiting = trio.CancelScope()
        self._closed = False

    @property
    def local_address(self) -> SocketAddress:
        """The relayed port. The host is left open: it is not for everybody to send to."""
        return SocketAddress("0.0.0.0", self._relay.local_address.port)

    def use(self, relay: RelaySocket) -> None:
        """Another relay has taken the place of the lost one."""
        self._relay = relay
        self._waiting.cancel()

    async def wait_readable(self) -> None:
        """See `BufferedSocket`."""
        while not self._batch:
            if self._closed:
                raise trio.ClosedResourceError("this socket is closed")
            relay = self._relay
            with trio.CancelScope() as self._waiting:
                try:
                    self._batch = await relay.receive()
                except trio.ClosedResourceError:
                    # Lost: `use` ends the wait.
                    await trio.sleep_forever()

    def read_nowait(self, buffer: ReceiveBuffer) -> list[Received]:
        """See `BufferedSocket`; what a relay delivers stands in memory of its own."""
        batch, self._batch = self._batch, []
        return batch

    async def receive(self) -> list[Received]:
        """See `DatagramSocket`."""
        await self.wait_readable()
        batch, self._batch = self._batch, []
        return batch

    def send_nowait(self, transmit: Transmit) -> int:
        """See `DatagramSocket`; without a relay what is sent is lost."""
        try:
            return self._relay.send_nowait(transmit)
        except trio.ClosedResourceError:
            return len(transmit.data)

    async def wait_writable(self) -> None:
        """See `DatagramSocket`."""
        try:
            await self._relay.wait_writable()
        except trio.ClosedResourceError:
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """See `DatagramSocket`."""
        self._closed = True
        self._relay.close()
        self._waiting.cancel()


@asynccontextmanager
async def open_relayed_mux(servers: Sequence[TurnServer], network: IceNetwork) -> AsyncIterator[Mux]:
    """Run the sockets of a host over the first of `servers` that gives a relay, and over another when it is lost.

    Those reached over UDP come last: this is for where none passes. Raises ConnectError naming each server if none
    does.
    """
    async with open_service_nursery("relayed socket") as nursery:
        by_hope = sorted(servers, key=lambda server: server.address.transport == "udp")
        socket = await nursery.start(_keep_relay, by_hope, network)
        async with open_mux_over(socket) as mux:
            try:
                yield attrs.evolve(mux, relayed=True)
            finally:
                socket.close()


async def _keep_relay(
    servers: Sequence[TurnServer], network: IceNetwork, task_status: trio.TaskStatus[RelayedSocket]
) -> None:
    socket: RelayedSocket | None = None
    pause = FIRST_PAUSE
    while True:
        failures = []
        for server in servers:
            try:
                async with open_relay(server, network=network) as relay:
                    pause = FIRST_PAUSE
                    if socket is None:
                        socket = RelayedSocket(relay)
                        task_status.started(socket)
                    else:
                        socket.use(relay)
                    logger.warning("the relay is lost: %s", await relay.wait_lost())
            except (A2alError, OSError) as error:
                failures.append(AttemptFailure(str(server.address), error))
        if socket is None:
            raise ConnectError("no UDP passes here, and no TURN server gives a relay", tuple(failures))
        await trio.sleep(pause)
        pause = min(LONGEST_PAUSE, 2 * pause)
