"""QUIC on a datagram socket: one core, three tasks, however many connections and streams there are.

Whoever reads (see reading.py) hands whatever has arrived to the core, and wakes the tasks that wait for it or, if there
are none, sends what the core has to say. The tasks so woken are expected to have a word, an answer or the next request;
what they say shares datagrams, and these leave when the last has had its word, or half of many: then the peer works on
the first half while we come to the second. What they have no need of, such as an acknowledgement of what we sent
before, is seen to when they have left. Commands of any other task mark the endpoint, and the sending task runs in
the next tick. The timing task keeps one deadline.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, closing
from typing import Self, assert_never

import trio

from a2al_trio.errors import CloseCause, ConfigurationError, ConnectionLost
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import DatagramSocket, Received, Transmit
from a2al_trio.quic.config import ClientTls, QuicConfig, ServerTls
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.driver.connection import CloseReason, QuicConnection, Wait
from a2al_trio.quic.driver.reading import Reading
from a2al_trio.quic.driver.wakeup import Wakeup
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.quic.errors import TransportErrorCode
from a2al_trio.quic.events import (
    ConnectionEarly,
    ConnectionEnded,
    ConnectionReady,
    DatagramsReadable,
    NewTokenReceived,
    PathChanged,
    PingAcknowledged,
    QuicEvent,
    StreamOpened,
    StreamReadable,
    StreamsAvailable,
    StreamWritable,
    TicketReceived,
)
from a2al_trio.quic.tls import SessionTicket
from a2al_trio.scopes import open_service_nursery

__all__ = ["QuicEndpoint", "open_quic"]

ACCEPT_QUEUE = 32
MIN_SHARE = 6
"""How many streams' words are worth a datagram of their own."""

GOODBYE_SECONDS = 0.25
"""How long leaving `open_quic` waits for a full socket to take the last packets."""


@asynccontextmanager
async def open_quic(
    socket: DatagramSocket,
    config: QuicConfig | None = None,
    *,
    server: ServerTls | None = None,
    accept_queue: int = ACCEPT_QUEUE,
) -> AsyncIterator[QuicEndpoint]:
    """Run QUIC on `socket`, which stays the caller's.

    With `server` the endpoint accepts connections; every endpoint can connect. At most `accept_queue` connections wait
    to be accepted, further ones are refused (CONNECTION_REFUSED, RFC 9000 §20.1). Leaving the block closes all
    connections with code 0.
    """
    endpoint = QuicEndpoint(socket, config or QuicConfig(), server, accept_queue)
    async with open_service_nursery("QUIC endpoint") as nursery:
        nursery.start_soon(endpoint._reading.stand_in)
        nursery.start_soon(endpoint._keep_time)
        nursery.start_soon(endpoint._send_when_asked)
        try:
            yield endpoint
        finally:
            endpoint._shut_down()
            with trio.move_on_after(GOODBYE_SECONDS, shield=True):
                await endpoint._drain()


def _numeric(address: SocketAddress) -> SocketAddress:
    """Return the address in its normal form; a text or a name of a host is a natural mistake."""
    try:
        return SocketAddress.of(*address)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"address must be a SocketAddress with an IP address, such as SocketAddress.parse('192.0.2.1:4433'), "
            f"not {address!r}; trio.socket.getaddrinfo looks names up"
        ) from None


class QuicEndpoint:
    """Connects and accepts on one socket; made by `open_quic`. Iterating over it yields accepted connections."""

    __slots__ = (
        "_accept_limit",
        "_accepted",
        "_accepting",
        "_closed",
        "_core",
        "_defer",
        "_drained",
        "_flush_wanted",
        "_heard",
        "_is_server",
        "_reading",
        "_send",
        "_share",
        "_socket",
        "_timer",
        "_unsent",
        "_words_expected",
    )

    def __init__(self, socket: DatagramSocket, config: QuicConfig, server: ServerTls | None, accept_queue: int) -> None:
        self._socket = socket
        self._send = socket.send_nowait
        self._core = QuicEndpointCore(config, server=server, entropy=secrets.token_bytes, now=trio.current_time())
        self._is_server = server is not None
        self._accept_limit = accept_queue
        self._accepted: deque[QuicConnection] = deque()
        self._accepting = trio.lowlevel.ParkingLot()
        self._reading = Reading(socket, self._take, self._flush_rest)
        self._flush_wanted = Wakeup()
        self._defer = False
        self._words_expected = self._heard = 0
        self._share = MIN_SHARE
        self._timer = trio.CancelScope()
        self._unsent: Transmit | None = None
        self._drained = trio.lowlevel.ParkingLot()
        self._closed = False

    @property
    def local_address(self) -> SocketAddress:
        """The address the socket is bound to."""
        return self._socket.local_address

    # --- connections -------------------------------------------------------------------------------------------

    async def connect(
        self,
        address: SocketAddress,
        *,
        tls: ClientTls,
        server_name: str = "",
        token: bytes = b"",
        ticket: SessionTicket | None = None,
        early: bool = False,
    ) -> QuicConnection:
        """Connect to `address` and wait until the handshake is complete.

        `server_name` is sent as SNI and handed to `tls.verify_peer`. `token` and `ticket` are an earlier connection's
        `address_token` and `session_ticket`. Cancelling closes the half-open connection.

        With `early` the connection is returned at once if `tls` and `ticket` allow 0-RTT: what is sent before
        `wait_ready` returns can be replayed by an attacker.

        Raises:
            ConnectionLost: the peer refused, did not answer, or broke the protocol. If `tls.verify_peer` turned its
                certificate down, what it raised is the `__cause__`.
            ConfigurationError: `address` is not an IP address with a port.
            trio.ClosedResourceError: the endpoint has been closed.
        """
        await trio.lowlevel.checkpoint()
        self._require_open()
        core = self._core.connect(
            _numeric(address),
            tls=tls,
            server_name=server_name or None,
            now=trio.current_time(),
            token=token,
            ticket=ticket,
        )
        connection = self._adopt(core)
        if early and core.early_keys is not None:
            self._flush_wanted.wake()
            return connection
        self._flush()
        try:
            await connection._wait_ready()
        except BaseException:
            connection.close()
            raise
        return connection

    async def accept(self) -> QuicConnection:
        """Wait for the next connection whose handshake is complete, or that brings early data.

        The latter only if `ServerTls.early_data` is set; see `QuicConnection.is_early`.

        Raises:
            trio.ClosedResourceError: the endpoint has been closed.
        """
        await trio.lowlevel.checkpoint()
        while not self._accepted:
            self._require_open()
            await self._accepting.park()
        return self._accepted.popleft()

    def network_changed(self, gone: Collection[str] = ()) -> None:
        """Our addresses have changed, and those in `gone` are not ours any more.

        Connections we made move, see `QuicConnection.migrate`. Those that were accepted at one of `gone` end with
        `CloseCause.PATH`, for clients do not follow a server to another address (RFC 9000 §9).
        """
        for core in list(self._core.connections):
            connection = core.user_data
            if not isinstance(connection, QuicConnection) or connection.close_reason is not None:
                continue
            if core.is_client:
                connection.migrate()
            elif core.local_host in gone:
                connection.lose(f"this host has no longer the address {core.local_host} that the peer knows")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QuicConnection:
        return await self.accept()

    async def serve(
        self,
        handler: Callable[[QuicConnection], Awaitable[object]],
        *,
        task_status: trio.TaskStatus[SocketAddress] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run `handler` in a task of its own for every connection; returning closes the connection with code 0.

        Never returns; cancel it to stop. A handler whose own connection is lost ends quietly, any other error of a
        handler propagates. Reports the local address when started with `nursery.start`.
        """

        async def handle(connection: QuicConnection) -> None:
            async with connection:
                try:
                    await handler(connection)
                except ConnectionLost:
                    if connection.close_reason is None:
                        raise  # some other connection of the handler's

        async with trio.open_nursery() as nursery:
            task_status.started(self.local_address)
            async for connection in self:
                nursery.start_soon(handle, connection)

    def _require_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this QUIC endpoint was closed")

    def _adopt(self, core: QuicConnectionCore) -> QuicConnection:
        connection = QuicConnection(self, core)
        core.user_data = connection
        return connection

    # --- the three tasks ---------------------------------------------------------------------------------------

    def _take(self, batches: list[Received]) -> int:
        """Hand what was read to the core and see to what follows; returns how many tasks that woke."""
        now = trio.current_time()
        take = self._core.receive_to_answer
        for batch in batches:
            take(batch, now)
        self._words_expected = self._heard = 0
        readable, others = self._dispatch()
        self._share = (readable + 1) >> 1 if readable >= 2 * MIN_SHARE else readable
        if others:
            # Tasks are about to run that may have something to send: acknowledgements travel with that.
            self._defer = True
            self._flush_wanted.wake()
        elif not self._words_expected:
            self._flush(now)
        return self._words_expected + others

    async def _keep_time(self) -> None:
        while True:
            due = self._core.next_timeout()
            with trio.CancelScope(deadline=math.inf if due is None else due) as self._timer:
                await trio.sleep_forever()
            # What is due usually has to be sent, which a full socket does not allow.
            await self._drain()
            # The deadline is only ever moved to an earlier time, so it may come before anything is due.
            now = trio.current_time()
            due = self._core.next_timeout()
            if due is not None and due <= now:
                self._core.handle_timeout(now)
                self._flush(now)

    async def _send_when_asked(self) -> None:
        while True:
            if self._unsent is None:
                await self._flush_wanted.wait()
                if self._defer:
                    self._defer = False
                    await trio.lowlevel.checkpoint()
            else:
                await self._socket.wait_writable()
                self._send_rest()
            if self._core.transmit_due:
                self._flush()

    async def _drain(self) -> None:
        while self._unsent is not None:
            await self._drained.park()

    def _flush_soon(self) -> None:
        """Send what commands of the application brought about, once all tasks of this tick have had their say."""
        if not self._reading.relief_due and self._flush_wanted.task is not None and self._core.transmit_due:
            self._flush_wanted.wake()

    def _flush_rest(self) -> None:
        """A task that read has gone its way: send what it said if that has not been done."""
        if self._core.transmit_due:
            self._flush()

    def _expect_word(self) -> None:
        """A task that was woken, or that was handed a stream of the peer, is about to have a word."""
        self._words_expected += 1

    def _had_word(self) -> None:
        """A task waits again, or is done with a stream of the peer: perhaps it was the last one to wait for."""
        expected = self._words_expected
        if not expected:
            return
        self._words_expected = expected - 1
        if expected > 1:
            self._heard += 1
            if self._heard < self._share:
                return
        self._heard = 0
        self._flush()

    # --- input, then drain ---------------------------------------------------------------------------------------

    def _flush(self, now: float | None = None) -> None:
        """Send what there is to send, hand out events, and see to the timer."""
        core = self._core
        if now is None:
            now = trio.current_time()
        # The usual word is one small datagram, and the peer waits for it: whatever can be done after it is.
        sent = core.send_small(self._send, now) if self._unsent is None else None
        if sent is not None and sent[1] < len(sent[0].data):
            self._keep_rest(*sent)
        elif sent is None and not core.transmit_due and not core.has_events:
            return  # nothing has happened since the last time
        if core.catch_up():
            self._transmit(now)
        if core.has_events:
            self._dispatch()
            if core.transmit_due:
                self._transmit(now)  # a connection that nobody can take care of was refused
        due = core.next_timeout()
        if due is not None and due < self._timer.deadline:
            self._timer.deadline = due

    def _transmit(self, now: float) -> None:
        if self._unsent is not None:
            return
        send = self._send
        with closing(self._core.datagrams_to_send(now)) as transmits:
            for transmit in transmits:
                taken = send(transmit)
                if taken < len(transmit.data):
                    self._keep_rest(transmit, taken)
                    return

    def _keep_rest(self, transmit: Transmit, taken: int) -> None:
        """Keep what the socket did not take, for the sending task."""
        self._flush_wanted.wake()
        # The core reuses its buffer, so what the socket did not take is copied; only one run at a time ever is.
        self._unsent = Transmit(
            bytes(memoryview(transmit.data)[taken:]),
            transmit.segment_size,
            transmit.destination,
            transmit.ecn,
            transmit.source_host,
        )

    def _send_rest(self) -> None:
        rest, self._unsent = self._unsent, None
        if rest is not None:
            taken = self._socket.send_nowait(rest)
            if taken < len(rest.data):
                self._keep_rest(rest, taken)
            else:
                self._drained.unpark_all()

    def _dispatch(self) -> tuple[int, int]:
        """Hand out all events; returns how many streams became readable, and how many events were not about that."""
        events = self._core.events
        readable = others = 0
        while events:
            event = events.popleft()
            if type(event) is StreamReadable:
                readable += 1
                connection = event.connection.user_data
                if type(connection) is QuicConnection:
                    stream = connection._streams.get(event.stream_id)
                    if stream is not None and stream._wake_receiver():
                        self._words_expected += 1
            elif type(event) is StreamOpened:
                connection = event.connection.user_data
                if type(connection) is QuicConnection:
                    connection._stream_opened(event.stream_id)
            else:
                others += 1
                self._handle(event)
        return readable, others

    def _handle(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionReady | ConnectionEarly):
            self._ready(event.connection)
            return
        connection = event.connection.user_data
        if not isinstance(connection, QuicConnection):
            return  # refused before anyone saw it
        match event:
            case StreamReadable() | StreamOpened():
                pass  # `_dispatch` has seen to it
            case StreamWritable(stream_id=stream_id):
                if (stream := connection._streams.get(stream_id)) is not None:
                    stream._wake_sender()
            case StreamsAvailable(unidirectional=unidirectional):
                connection._wake(Wait.UNIDIRECTIONAL_CREDIT if unidirectional else Wait.CREDIT)
            case DatagramsReadable():
                connection._wake(Wait.DATAGRAM)
            case ConnectionEnded(by=by, code=code, reason=reason):
                connection._ended(CloseReason(by, code, reason))
            case TicketReceived(ticket=ticket):
                connection.session_ticket = ticket
                connection._wake(Wait.TICKET)
            case PingAcknowledged():
                connection._wake_all(Wait.PING)
            case NewTokenReceived(token=token):
                connection.address_token = token
            case PathChanged():
                pass  # `peer_address` asks the core
            case _:
                assert_never(event)

    def _ready(self, core: QuicConnectionCore) -> None:
        if isinstance(core.user_data, QuicConnection):
            core.user_data._wake_all(Wait.READY)
            return
        if len(self._accepted) >= self._accept_limit:
            # Connections that ended while they waited do not keep others out.
            self._accepted = deque(waiting for waiting in self._accepted if waiting.close_reason is None)
        if len(self._accepted) >= self._accept_limit or self._closed:
            core.close_transport(TransportErrorCode.CONNECTION_REFUSED, "", trio.current_time())
        else:
            self._accepted.append(self._adopt(core))
            self._accepting.unpark()

    def _shut_down(self) -> None:
        self._closed = True
        for core in list(self._core.connections):
            if isinstance(core.user_data, QuicConnection):
                core.user_data._ended(CloseReason(CloseCause.LOCAL))
        self._core.close_all(0, "", trio.current_time())
        self._accepting.unpark_all()
        self._flush()
