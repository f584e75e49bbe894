"""QUIC connections as Trio resources."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio

from a2al_trio.errors import CloseCause, ConnectionLost
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.driver.metered import MeteredStream, StreamMeter
from a2al_trio.quic.driver.serving import serve_streams
from a2al_trio.quic.driver.stream import QuicReceiveStream, QuicSendStream, QuicStream
from a2al_trio.quic.driver.wakeup import Line

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.driver.endpoint import QuicEndpoint
    from a2al_trio.quic.stats import ConnectionStats
    from a2al_trio.quic.tls import SessionTicket

__all__ = ["CloseReason", "QuicConnection"]

UNIDIRECTIONAL = 0x2
"""The bit of a stream ID that says so (RFC 9000 §2.1)."""


@attrs.frozen
class CloseReason:
    """How a connection ended: who ended it, and the code and text that were said.

    Codes are the application's own for `PEER_APP` and `LOCAL`, those of RFC 9000 §20 otherwise.
    """

    by: CloseCause
    code: int = 0
    reason: str = ""


class Wait(enum.IntEnum):
    """What tasks wait for at a connection; integers are the quickest keys."""

    READY = enum.auto()
    STREAM = enum.auto()
    UNIDIRECTIONAL_STREAM = enum.auto()
    CREDIT = enum.auto()
    UNIDIRECTIONAL_CREDIT = enum.auto()
    DATAGRAM = enum.auto()
    TICKET = enum.auto()
    PING = enum.auto()
    END = enum.auto()


# Looked up once: that takes longer than what is done with them for each stream.
STREAM, UNIDIRECTIONAL_STREAM = Wait.STREAM, Wait.UNIDIRECTIONAL_STREAM


class QuicConnection(trio.abc.AsyncResource):
    """A QUIC connection, made by `QuicEndpoint.connect` or `QuicEndpoint.accept`.

    Iterating over it yields the bidirectional streams the peer opens, until the peer closes the connection with code 0.
    Leaving `async with` closes it with code 0. Closing throws away what has not arrived yet: the side that received the
    last data closes first, the other awaits `wait_closed()`.
    """

    __slots__ = (
        "_core",
        "_endpoint",
        "_lines",
        "_opened",
        "_opened_unidirectional",
        "_streams",
        "address_token",
        "close_reason",
        "meter",
        "session_ticket",
    )

    def __init__(self, endpoint: QuicEndpoint, core: QuicConnectionCore) -> None:
        self._endpoint = endpoint
        self._core = core
        self._streams: dict[int, QuicSendStream | QuicReceiveStream] = {}
        # Plain lists: they are short, and an empty deque would cost each idle connection half a kilobyte.
        self._opened: list[int] = []
        self._opened_unidirectional: list[int] = []
        self._lines: dict[Wait, Line] = {}
        self.close_reason: CloseReason | None = None
        """How the connection ended, or None while it is open."""
        self.meter: StreamMeter | None = None
        """Who counts, and may hold back, the bidirectional streams accepted from here on; None lets them be."""
        self.session_ticket: SessionTicket | None = None
        """The latest TLS session ticket from the server, for `connect(ticket=...)` (RFC 8446 §4.6.1)."""
        self.address_token: bytes | None = None
        """The latest address validation token from the server, for `connect(token=...)` (RFC 9000 §8.1.3)."""

    def __repr__(self) -> str:
        state = self.close_reason.by.value if self.close_reason else "open"
        return f"<QuicConnection with {self.peer_address} ({state})>"

    # --- what is known about it --------------------------------------------------------------------------------

    @property
    def peer_certificates(self) -> tuple[bytes, ...]:
        """The peer's certificate chain, DER, its own certificate first; empty if it sent none."""
        return self._core.peer_certificates

    @property
    def alpn(self) -> str | None:
        """The application protocol both sides agreed on (RFC 7301)."""
        return self._core.alpn

    @property
    def server_name(self) -> str | None:
        """The server name the client asked for (RFC 6066 §3)."""
        return self._core.server_name

    @property
    def version(self) -> int:
        """The QUIC version in use."""
        return self._core.version

    @property
    def resumed(self) -> bool:
        """Whether a session ticket took the place of certificates."""
        return self._core.resumed

    @property
    def early_data_accepted(self) -> bool:
        """Whether what was sent before the handshake was complete counted (RFC 8446 §2.3)."""
        return self._core.early_data_accepted

    @property
    def is_early(self) -> bool:
        """Whether the handshake is still under way, so that what arrives may be repeated by an attacker.

        Only ever true with 0-RTT (RFC 9001 §9.2): on a server before it knows that the client is there now, on a client
        after `connect(..., early=True)`. Do nothing then that must not happen twice; `wait_ready` ends the doubt
        (RFC 8470 says what HTTP makes of it).
        """
        return not self._core.ready

    @property
    def local_address(self) -> SocketAddress:
        """Our address on the current path; the host is the wildcard if the socket cannot tell."""
        local = self._endpoint.local_address
        return SocketAddress(self._core.local_host or local.host, local.port)

    @property
    def peer_address(self) -> SocketAddress:
        """The peer's address on the current path."""
        return self._core.peer_address

    @property
    def stats(self) -> ConnectionStats:
        """A snapshot of round-trip time, window, losses and byte counts."""
        return self._core.stats

    async def wait_ready(self) -> None:
        """Wait until the handshake is complete: there is something to wait for only while `is_early`.

        Raises as `QuicEndpoint.connect` does.
        """
        await trio.lowlevel.checkpoint()
        await self._wait_ready()

    async def wait_session_ticket(self) -> SessionTicket:
        """Wait until the server has sent a session ticket; raises as `open_stream` does."""
        await trio.lowlevel.checkpoint()
        while self.session_ticket is None:
            self._require_open()
            await self._park(Wait.TICKET)
        return self.session_ticket

    async def ping(self) -> None:
        """Wait until the peer has acknowledged a packet, which is sent for the purpose (RFC 9000 §10.1.2).

        Tells a peer that is gone from one that is quiet, long before the idle timeout does: the answer takes a round
        trip. Raises as `open_stream` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._require_open()
        self._core.ping()
        self._flush_soon()
        await self._park(Wait.PING)
        self._require_open()

    # --- the path and its keys -----------------------------------------------------------------------------------

    def migrate(self) -> bool:
        """Tell the peer that our address has changed, and use the new path once it is validated (RFC 9000 §9.2).

        Addresses that a NAT changes are followed without this. False if the peer does not allow it.
        """
        self._require_open()
        moved = self._core.migrate()
        self._flush_soon()
        return moved

    def update_keys(self) -> bool:
        """Encrypt with new keys from here on (RFC 9001 §6); False if the last update is still under way."""
        self._require_open()
        return self._core.update_keys(trio.current_time())

    # --- streams -----------------------------------------------------------------------------------------------

    async def open_stream(self) -> QuicStream:
        """Open a bidirectional stream, waiting while the peer allows no more.

        The peer notices the stream when the first bytes or the end are sent on it.

        Raises:
            ConnectionLost: the connection ended, and not by our own `close`.
            trio.ClosedResourceError: the connection was closed here.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        stream_id = None if self.close_reason is not None else self._core.open_stream()
        if stream_id is None:
            stream_id = await self._open_stream(Wait.CREDIT)
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        return stream

    async def open_unidirectional_stream(self) -> QuicSendStream:
        """Open a stream that only we send on; otherwise like `open_stream`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        stream_id = await self._open_stream(Wait.UNIDIRECTIONAL_CREDIT)
        stream = self._streams[stream_id] = QuicSendStream(self, stream_id)
        return stream

    async def _open_stream(self, wait: Wait) -> int:
        while True:
            self._require_open()
            stream_id = self._core.open_stream(unidirectional=wait is Wait.UNIDIRECTIONAL_CREDIT)
            if stream_id is not None:
                # The peer may have allowed several: the next waiting task tries its luck.
                self._wake(wait)
                return stream_id
            self._flush_soon()
            await self._park(wait)

    async def accept_stream(self) -> QuicStream:
        """Wait for the next bidirectional stream of the peer; streams come in the order of their numbers.

        Streams that had been opened before the connection ended are still handed out. Raises as `open_stream` does.
        """
        stream_id = await self._accept_stream(self._opened, STREAM)
        if self.meter is not None:
            return await self._admit_stream(stream_id, self.meter)
        stream = self._streams[stream_id] = QuicStream(self, stream_id)
        return stream

    async def _admit_stream(self, stream_id: int, meter: StreamMeter) -> QuicStream:
        try:
            await meter.admit()
        except BaseException:
            self._opened.insert(0, stream_id)  # whoever accepts next gets it
            self._wake(STREAM)
            raise
        stream = self._streams[stream_id] = MeteredStream(self, stream_id)
        stream.meter_by(meter)
        return stream

    async def accept_unidirectional_stream(self) -> QuicReceiveStream:
        """Wait for the next stream that only the peer sends on; otherwise like `accept_stream`."""
        stream_id = await self._accept_stream(self._opened_unidirectional, UNIDIRECTIONAL_STREAM)
        stream = self._streams[stream_id] = QuicReceiveStream(self, stream_id)
        return stream

    async def _accept_stream(self, opened: list[int], wait: Wait) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        endpoint = self._endpoint
        while True:
            if self.close_reason is not None:
                self._require_not_closed_here()
            if opened:
                stream_id = opened.pop(0)
                if opened and self._wake(wait):
                    endpoint._expect_word()
                endpoint._expect_word()
                return stream_id
            self._require_open()
            endpoint._had_word()
            if self.close_reason is None:
                await self._park(wait)
                # Should this task have nothing to say, the acknowledgement of what came leaves all the same.
                endpoint._flush_soon()

    async def serve(self, handler: Callable[[QuicStream], Awaitable[object]]) -> None:
        """Run `handler` for every bidirectional stream the peer opens, until it closes the connection with code 0.

        Streams are handled side by side, by as many tasks as it takes; the tasks are used again, so a handler finds the
        context variables as the one before it left them. A stream is finished when its handler returns, and reset when
        it raises. A handler that ends with `StreamReset` or `StreamStopped`, because somebody gave up, or that fails
        because this connection ended, ends quietly; any other error propagates.

        Raises `ConnectionLost` and `trio.ClosedResourceError` as `open_stream` does.
        """
        await serve_streams(self, handler)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> QuicStream:
        try:
            return await self.accept_stream()
        except ConnectionLost as lost:
            if lost.by is CloseCause.PEER_APP and lost.code == 0:
                raise StopAsyncIteration from None
            raise

    # --- datagrams ---------------------------------------------------------------------------------------------

    @property
    def max_datagram_size(self) -> int:
        """The largest datagram that can be sent now; 0 if the peer takes none (RFC 9221 §3)."""
        return self._core.max_datagram_size

    @property
    def takes_datagrams(self) -> bool:
        """Whether we allow the peer to send datagrams, see `QuicConfig.max_datagram_frame_size` (RFC 9221 §3)."""
        return self._core.config.max_datagram_frame_size > 0

    def send_datagram(self, data: bytes) -> bool:
        """Send an unreliable datagram (RFC 9221); False if the queue was full and it was dropped.

        Raises:
            LocalProtocolError: it is larger than `max_datagram_size`.
            ConnectionLost, trio.ClosedResourceError: as for `open_stream`.
        """
        self._require_open()
        queued = self._core.send_datagram(data)
        self._flush_soon()
        return queued

    async def receive_datagram(self) -> bytes:
        """Wait for a datagram of the peer. Raises as `open_stream` does."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._require_open()
            data = self._core.receive_datagram()
            if data is not None:
                return data
            await self._park(Wait.DATAGRAM)

    # --- the end -----------------------------------------------------------------------------------------------

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close at once: the peer learns `code` and `reason`, data under way in either direction is lost.

        Tasks that use the connection or its streams get `trio.ClosedResourceError`. Does nothing if the connection has
        ended already.
        """
        if self.close_reason is None:
            self._core.close(code, reason, trio.current_time())
            self._ended(CloseReason(CloseCause.LOCAL, code, reason))
            self._endpoint._flush()

    def lose(self, reason: str) -> None:
        """End because what carries the packets is gone: tasks get `ConnectionLost` with the cause `CloseCause.PATH`.

        For those who know more than QUIC, which would wait for its idle timeout. Does nothing after the end.
        """
        if self.close_reason is None:
            self._core.lose(reason, trio.current_time())
            self._ended(CloseReason(CloseCause.PATH, 0, reason))
            self._endpoint._flush()

    async def aclose(self) -> None:
        """Close with code 0, see `close`."""
        self.close()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def wait_closed(self) -> None:
        """Wait until the connection has ended, however it does; `close_reason` then says how."""
        await trio.lowlevel.checkpoint()
        while self.close_reason is None:
            await self._park(Wait.END)

    # --- between the endpoint and the waiting tasks --------------------------------------------------------------

    async def _wait_ready(self) -> None:
        while not self._core.ready:
            self._require_open()
            await self._park(Wait.READY)
        self._lines.pop(Wait.READY, None)
        self._require_open()

    def _require_not_closed_here(self) -> None:
        if self.close_reason is not None and self.close_reason.by is CloseCause.LOCAL:
            raise trio.ClosedResourceError("the connection was closed here")

    def _require_open(self) -> None:
        end = self.close_reason
        if end is not None:
            self._require_not_closed_here()
            raise ConnectionLost(end.by, end.code, end.reason) from self._core.close_error

    def _park(self, wait: Wait) -> Coroutine[Any, Any, None]:
        """Wait in line for this; without a coroutine of its own, for requests pass through here."""
        line = self._lines.get(wait)
        if line is None:
            line = self._lines[wait] = Line(self._endpoint._reading)
        return line.wait()

    def _wake(self, wait: Wait) -> bool:
        """Let one task that waits for this try again; returns whether there is one."""
        line = self._lines.get(wait)
        return line is not None and line.wake()

    def _wake_all(self, wait: Wait) -> None:
        line = self._lines.get(wait)
        if line is not None:
            line.wake_all()

    def _flush_soon(self) -> None:
        self._endpoint._flush_soon()

    def _stream_opened(self, stream_id: int) -> None:
        """Hand the stream to a task that waits for one; of several, the task wakes the next when it takes the first."""
        unidirectional = stream_id & UNIDIRECTIONAL
        opened = self._opened_unidirectional if unidirectional else self._opened
        opened.append(stream_id)
        if len(opened) == 1:
            line = self._lines.get(UNIDIRECTIONAL_STREAM if unidirectional else STREAM)
            if line is not None and line.wake_reader_or_first():
                self._endpoint._expect_word()

    def _ended(self, end: CloseReason) -> None:
        """Note the end once, and let everybody who waits here find out."""
        if self.close_reason is not None:
            return
        self.close_reason = end
        for stream in self._streams.values():
            stream._wake_all()
        for line in self._lines.values():
            line.wake_all()
