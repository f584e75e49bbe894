"""aioquic as a peer: its sans-IO connections driven by Trio, over any datagram socket.

Nothing of it runs in an event loop of its own, so tests work on real sockets and in simulated networks alike.
"""

from __future__ import annotations

import math
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from aioquic._buffer import Buffer
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import (
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Transmit
from a2al_trio.quic.driver.wakeup import Wakeup
from a2al_trio.quic.tls.config import Credentials

TICK = 1e-5
Handler = Callable[["AioquicConnection", int, bytes, bool], None]


def pem_files(credentials: Credentials, folder: Path) -> tuple[Path, Path]:
    """Write credentials as the PEM files aioquic loads."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    leaf = load_der_x509_certificate(credentials.chain[0])
    certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        credentials.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key


def configuration(*, is_client: bool, credentials: Credentials | None = None, **settings: object) -> QuicConfiguration:
    """aioquic's configuration with the ALPN of the tests, nothing verified unless asked."""
    config = QuicConfiguration(is_client=is_client, alpn_protocols=["test"], verify_mode=ssl.CERT_NONE)
    for name, value in settings.items():
        setattr(config, name, value)
    if credentials is not None:
        with tempfile.TemporaryDirectory() as folder:
            config.load_cert_chain(*pem_files(credentials, Path(folder)))
    return config


class AioquicConnection:
    """One aioquic connection and everything that has happened on it."""

    def __init__(self, peer: AioquicPeer, quic: QuicConnection, address: SocketAddress) -> None:
        self.peer = peer
        self.quic = quic
        self.address = address
        self.handshake: events.HandshakeCompleted | None = None
        self.terminated: events.ConnectionTerminated | None = None
        self.received: dict[int, bytearray] = {}
        self.finished: set[int] = set()
        self.resets: dict[int, int] = {}
        self.stops: dict[int, int] = {}
        self.datagrams: list[bytes] = []
        self.tickets: list[Any] = []
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; fails if the connection ends before."""
        while not condition():
            assert self.terminated is None, f"ended: {self.terminated}"
            await self._changed.wait()

    async def until_terminated(self) -> events.ConnectionTerminated:
        """Wait for the end of the connection."""
        while self.terminated is None:
            await self._changed.wait()
        return self.terminated

    def send(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Queue stream data and send what may be sent."""
        self.quic.send_stream_data(stream_id, data, end)
        self.peer.flush()

    def take_events(self) -> None:
        """Note what has happened since the last call."""
        while (event := self.quic.next_event()) is not None:
            match event:
                case events.HandshakeCompleted():
                    self.handshake = event
                case events.ConnectionTerminated():
                    self.terminated = event
                case events.StreamDataReceived(stream_id=stream_id):
                    self.received.setdefault(stream_id, bytearray()).extend(event.data)
                    if event.end_stream:
                        self.finished.add(stream_id)
                    if self.peer.handler is not None:
                        self.peer.handler(self, stream_id, event.data, event.end_stream)
                case events.StreamReset(stream_id=stream_id):
                    self.resets[stream_id] = event.error_code
                case events.StopSendingReceived(stream_id=stream_id):
                    self.stops[stream_id] = event.error_code
                case events.ConnectionIdIssued():
                    self.peer.connection_id_issued(self, event.connection_id)
                case events.DatagramFrameReceived():
                    self.datagrams.append(event.data)
        self._changed.set()
        self._changed = trio.Event()


class AioquicPeer:
    """aioquic on one socket: one client connection, or a server's many."""

    def __init__(
        self, socket: DatagramSocket, config: QuicConfiguration, *, handler: Handler | None, retry: bool, ask: bool
    ) -> None:
        self.socket = socket
        self.handler = handler
        self.connections: list[AioquicConnection] = []
        self.session_tickets: dict[bytes, Any] = {}
        self._config = config
        self._by_cid: dict[bytes, AioquicConnection] = {}
        self._retry = retry
        self._ask = ask
        self._receiving = Wakeup()
        self._timer = trio.CancelScope()

    def connect(self, address: SocketAddress) -> AioquicConnection:
        """Begin a connection; await `until(lambda: connection.handshake)`."""
        tickets: list[Any] = []
        quic = QuicConnection(configuration=self._config, session_ticket_handler=tickets.append)
        connection = AioquicConnection(self, quic, address)
        connection.tickets = tickets
        self.connections.append(connection)
        quic.connect(tuple(address), now=trio.current_time())
        self.flush()
        return connection

    async def connected(self, address: SocketAddress) -> AioquicConnection:
        """Connect and wait for the handshake."""
        connection = self.connect(address)
        await connection.until(lambda: connection.handshake is not None)
        return connection

    async def accepted(self) -> AioquicConnection:
        """Wait for the first connection of a server to finish its handshake."""
        while not self.connections or self.connections[0].handshake is None:
            await self._receiving.wait()
        return self.connections[0]

    def flush(self) -> None:
        """Send what is due on all connections."""
        now = trio.current_time()
        due = math.inf
        for connection in self.connections:
            connection.take_events()  # first: what handlers answer goes out now, or nothing may ever wake us again
            for data, address in connection.quic.datagrams_to_send(now=now):
                self.socket.send_nowait(Transmit(data, len(data), SocketAddress(*address[:2])))
            connection.take_events()
            timer = connection.quic.get_timer()
            due = min(due, math.inf if timer is None else timer)
        # It may leave a deadline in the past, as if its next clock reading were later; a virtual clock needs a step.
        self._timer.deadline = max(due, now + TICK)

    async def run(self) -> None:
        """Receive, and keep the timers."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            nursery.start_soon(self.run_on, self.socket)

    async def run_on(self, socket: DatagramSocket) -> None:
        """Receive on another socket as well."""
        while True:
            for batch in await socket.receive():
                for datagram in batch.datagrams():
                    self._receive(bytes(datagram), batch.source)
            self.flush()
            self._receiving.wake()

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._timer.deadline) as self._timer:
                await trio.sleep_forever()
            now = trio.current_time()
            for connection in self.connections:
                timer = connection.quic.get_timer()
                if timer is not None and timer <= now:
                    connection.quic.handle_timer(now=now)
            self.flush()

    def _receive(self, data: bytes, source: SocketAddress) -> None:
        if self._config.is_client:
            connection = self.connections[-1]
        else:
            header = pull_quic_header(Buffer(data=data), host_cid_length=8)
            found = self._by_cid.get(header.destination_cid)
            if found is None and header.version is not None and header.version not in self._config.supported_versions:
                answer = encode_quic_version_negotiation(
                    source_cid=header.destination_cid,
                    destination_cid=header.source_cid,
                    supported_versions=self._config.supported_versions,
                )
                self.socket.send_nowait(Transmit(answer, len(answer), source))
                return
            if found is None:
                if header.packet_type is not QuicPacketType.INITIAL:
                    return
                found = self._accept(header, source)
                if found is None:
                    return
            connection = found
        connection.quic.receive_datagram(data, tuple(source), now=trio.current_time())

    def _accept(self, header: QuicHeader, source: SocketAddress) -> AioquicConnection | None:
        original, retry_source = header.destination_cid, None
        if self._retry:
            if not header.token:
                assert header.version is not None
                cid = os.urandom(8)
                packet = encode_quic_retry(
                    version=header.version,
                    source_cid=cid,
                    destination_cid=header.source_cid,
                    original_destination_cid=header.destination_cid,
                    retry_token=b"token" + header.destination_cid,
                )
                self.socket.send_nowait(Transmit(packet, len(packet), source))
                return None
            original, retry_source = header.token[5:], header.destination_cid
        quic = QuicConnection(
            configuration=self._config,
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            session_ticket_fetcher=self.session_tickets.get,
            session_ticket_handler=lambda ticket: self.session_tickets.__setitem__(ticket.ticket, ticket),
        )
        connection = AioquicConnection(self, quic, source)
        if self._ask:
            # There is no setting for it: the TLS engine is told to ask once it exists.
            initialize = quic._initialize

            def initialize_and_ask(peer_cid: bytes) -> None:
                initialize(peer_cid)
                quic.tls._request_client_certificate = True

            quic._initialize = initialize_and_ask  # type: ignore[method-assign]
        self.connections.append(connection)
        self._by_cid[header.destination_cid] = connection
        self._by_cid[quic.host_cid] = connection
        return connection

    def connection_id_issued(self, connection: AioquicConnection, cid: bytes) -> None:
        """Route packets for `cid` to `connection` from now on."""
        self._by_cid[cid] = connection


@asynccontextmanager
async def open_aioquic(
    socket: DatagramSocket,
    config: QuicConfiguration,
    *,
    handler: Handler | None = None,
    retry: bool = False,
    ask: bool = False,
) -> AsyncIterator[AioquicPeer]:
    """Run aioquic on `socket`; `retry` validates addresses, `ask` asks clients for certificates."""
    peer = AioquicPeer(socket, config, handler=handler, retry=retry, ask=ask)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        yield peer
        nursery.cancel_scope.cancel()
