"""QUIC streams as Trio streams, with backpressure in both directions.

Sending waits while the stream's send buffer is full; flow control credit is granted as the application takes bytes, so
a slow reader slows the sender down and nothing piles up here. One task may send and one may receive at a time.

Every call can be cancelled. Calls that find what they want already there return without letting other tasks run: what
is there is bounded, and more comes only through another task. `send_all` lets others run after RUN_ON_LIMIT bytes. So
what a task says and hears in one go costs one turn of Trio's loop, and shares datagrams.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

import trio

from a2al_trio.errors import RemoteProtocolError, StreamReset, StreamStopped
from a2al_trio.quic.driver.wakeup import ReadersWakeup, Wakeup

if TYPE_CHECKING:
    from a2al_trio.quic.driver.connection import QuicConnection

__all__ = ["QuicReceiveStream", "QuicSendStream", "QuicStream", "in_bytes"]

RECEIVE_SIZE = 256 * 1024
"""How much `receive_some` returns at most when not told; a whole batch of datagrams fits."""

NOBODY = Wakeup()
"""Stands where nobody has waited yet: most streams never make anyone wait in one direction."""

RUN_ON_LIMIT = 64 * 1024
SEND_COST = 2048
"""Bytes sent, and an amount for each call, after which `send_all` lets other tasks run."""

Buffer = bytes | bytearray | memoryview


def in_bytes(data: Buffer) -> bytes | memoryview:
    """Return `data` such that its length counts bytes; raises TypeError if it holds none, as texts do not."""
    return data if type(data) is bytes else memoryview(data).cast("B")


class _StreamBase:
    """What all three kinds of stream share: the place in the connection, and closing."""

    __slots__ = (
        "_closed",
        "_connection",
        "_finished",
        "_full",
        "_peeked",
        "_readable",
        "_receive_ended",
        "_receiver",
        "_receiving",
        "_reset_code",
        "_run_on",
        "_sending",
        "_sending_wakeup",
        "_stopped_code",
        "on_given_up",
        "stream_id",
    )
    _sends = True
    _receives = True

    def __init__(self, connection: QuicConnection, stream_id: int) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self._closed = False
        self._sending = self._receiving = False
        self._finished = not self._sends
        self._full = False
        self._run_on = 0
        self._receive_ended = not self._receives
        # The core says when there is something to read, so a stream of ours need not be looked at before.
        self._readable = (stream_id & 1) == connection._core.is_client
        self._receiver: trio.lowlevel.Task | None = None
        self._peeked = b""
        self._reset_code: int | None = None
        self._stopped_code: int | None = None
        self._sending_wakeup: Wakeup = NOBODY
        self.on_given_up: Callable[[], object] | None = None
        """Called once, at once, when the peer stops or resets the stream or the connection ends; it must not raise."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream_id} of {self._connection!r}>"

    def _wake_sender(self) -> None:
        self._full = False
        if self._sending:
            self._sending_wakeup.wake()
        if self.on_given_up is not None:
            self._tell_if_given_up()

    def _wake_receiver(self) -> bool:
        self._readable = True
        if self.on_given_up is not None:
            self._tell_if_given_up()
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return False
        self._connection._endpoint._reading.resume(receiver)
        return True

    def _tell_if_given_up(self) -> None:
        connection, tell = self._connection, self.on_given_up
        if tell is not None and (connection.close_reason is not None or connection._core.is_given_up(self.stream_id)):
            self.on_given_up = None
            tell()

    def _wake_all(self) -> None:
        self._wake_sender()
        self._wake_receiver()

    def _require_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        self._connection._require_open()

    async def aclose(self) -> None:
        """Finish sending and stop receiving.

        What was sent is still delivered; the peer is told to stop sending. Closing while cancelled abandons the stream
        instead (RESET_STREAM with code 0), so that the peer never takes half a message for a whole one.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        if self._sending or self._receiving:
            self._wake_all()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._leave(finish=False)
            raise
        self._leave(finish=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; a block that ends in an exception has not said all it wanted, so the stream is reset."""
        if error_type is not None and not self._closed:
            self._closed = True
            self._wake_all()
            self._leave(finish=False)
        await self.aclose()

    def _leave(self, *, finish: bool) -> None:
        """Say goodbye to the core, which forgets the stream once the peer has done its part."""
        connection = self._connection
        connection._streams.pop(self.stream_id, None)
        if connection.close_reason is not None:
            return  # the core wants no word any more
        core = connection._core
        if not self._finished:
            self._finished = True
            if finish:
                self._finish()
            else:
                core.reset(self.stream_id, 0)
        if not self._receive_ended:
            core.stop(self.stream_id, 0)
        core.forget(self.stream_id)
        endpoint = connection._endpoint
        if (self.stream_id & 1) == core.is_client:
            endpoint._had_word()  # the peer's request has been dealt with
        endpoint._flush_soon()

    def _finish(self) -> None:
        try:
            self._connection._core.write(self.stream_id, b"", True)
        except StreamStopped:
            return  # a peer that has stopped reading has no use for the end


class QuicSendStream(_StreamBase, trio.abc.SendStream):
    """The sending half of a QUIC stream; `open_unidirectional_stream` returns one."""

    __slots__ = ()
    _receives = False

    async def send_all(self, data: Buffer, *, end: bool = False) -> None:
        """Send all of `data`; waits while the send buffer is full.

        With `end` this is the last there is to send, as if `send_eof` followed. Returning means that the data will be
        sent, not that it has arrived. If this is cancelled, part of the data may have been sent.

        Raises:
            StreamStopped: the peer does not want more.
            ConnectionLost: the connection ended, and not by our own `close`.
            trio.ClosedResourceError: this stream, its sending half or the connection was closed here.
            trio.BusyResourceError: another task is sending on this stream.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        connection = self._connection
        if self._finished or self._closed or connection.close_reason is not None:
            self._require_sending()
        if type(data) is not bytes:
            data = in_bytes(data)
        size = len(data)
        try:
            accepted = connection._core.write(self.stream_id, data, end)
        except StreamStopped as stopped:
            self._on_stopped(stopped)
            raise
        connection._endpoint._flush_soon()
        if accepted < size:
            await self._send_rest(memoryview(data)[accepted:], end=end)
            return
        if end:
            self._finished = True
            return
        self._run_on += size + SEND_COST
        if self._run_on >= RUN_ON_LIMIT:
            self._run_on = 0
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def _send_rest(self, data: memoryview, *, end: bool) -> None:
        connection, accepted = self._connection, 0
        while accepted < len(data):
            self._full = True
            await self._wait_for_room()
            try:
                accepted += connection._core.write(self.stream_id, data[accepted:], end)
            except StreamStopped as stopped:
                self._on_stopped(stopped)
                raise
            connection._endpoint._flush_soon()
        self._finished = end

    def _on_stopped(self, stopped: StreamStopped) -> None:
        """The core has told us once, and may forget the stream: from here on it is we who know."""
        self._stopped_code, self._finished = stopped.code, True

    async def _wait_for_room(self) -> None:
        """Wait until the core takes bytes again; only one task at a time gets here."""
        if self._sending_wakeup is NOBODY:
            self._sending_wakeup = ReadersWakeup(self._connection._endpoint._reading)
        self._sending = True
        try:
            while self._full:
                await self._sending_wakeup.wait()
                self._require_sending()
        finally:
            self._sending = False

    def send_nowait(self, data: Buffer, *, end: bool = False) -> int:
        """Send as much of `data` as the send buffer has room for, and return how much; raises as `send_all` does.

        With `end` this is the last there is to send, provided that all of it was taken.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        connection = self._connection
        if self._finished or self._closed or connection.close_reason is not None:
            self._require_sending()
        if type(data) is not bytes:
            data = in_bytes(data)
        try:
            accepted = connection._core.write(self.stream_id, data, end)
        except StreamStopped as stopped:
            self._on_stopped(stopped)
            raise
        connection._endpoint._flush_soon()
        self._full = accepted < len(data)
        if end:
            self._finished = not self._full
        return accepted

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the send buffer has room; raises as `send_all` does."""
        await trio.lowlevel.checkpoint()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._require_sending()
        await self._wait_for_room()

    async def send_eof(self) -> None:
        """Finish sending: the peer reads what was sent and then the end. Receiving goes on.

        Calling twice is fine, and so is a peer that has stopped reading: it needs no end. Raises `ConnectionLost`,
        `trio.ClosedResourceError` and `trio.BusyResourceError` as `send_all` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._require_open()
        if not self._finished:
            self._finished = True
            self._finish()
            self._connection._endpoint._flush_soon()

    def reset(self, code: int = 0) -> None:
        """Abandon sending (RFC 9000 §19.4): the peer's reads raise `StreamReset` with this application code."""
        if not self._closed and self._connection.close_reason is None:
            self._connection._core.reset(self.stream_id, code)
            self._finished = True
            self._connection._endpoint._flush_soon()
            self._wake_sender()

    def set_urgency(self, urgency: int) -> None:
        """Order sending among the streams of the connection: lower numbers go first (0 to 7; 3 at the beginning)."""
        self._require_open()
        self._connection._core.set_urgency(self.stream_id, urgency)

    def _require_sending(self) -> None:
        self._require_open()
        if self._stopped_code is not None:
            raise StreamStopped(self._stopped_code)
        if self._finished:
            raise trio.ClosedResourceError("the sending half of this stream was finished or reset here")


class QuicReceiveStream(_StreamBase, trio.abc.ReceiveStream):
    """The receiving half of a QUIC stream; `accept_unidirectional_stream` returns one."""

    __slots__ = ()
    _sends = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data and return it, at most `max_bytes`; `b""` is the end of the stream.

        Raises:
            StreamReset: the peer abandoned the stream.
            ConnectionLost: the connection ended, and not by our own `close`; a stream that had arrived completely
                before that can still be read to its end.
            trio.ClosedResourceError: the stream or the connection was closed here.
            trio.BusyResourceError: another task is receiving on this stream.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        if self._closed or self._connection.close_reason is not None:
            self._require_open_for_receiving()
        limit = RECEIVE_SIZE if max_bytes is None else max_bytes
        if not self._readable and not self._peeked:
            return await self._wait_for_data(limit)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._peeked:
            peeked, self._peeked = self._peeked[:limit], self._peeked[limit:]
            return peeked + (self._take(limit - len(peeked)) or b"") if len(peeked) < limit else peeked
        data = self._take(limit)
        return data if data is not None else await self._wait_for_data(limit)

    def receive_nowait(self) -> bytes | None:
        """Return what is there: None if that means to wait, `b""` at the end. Raises as `receive_some` does."""
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        if self._closed or self._connection.close_reason is not None:
            self._require_open_for_receiving()
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        return self._take(RECEIVE_SIZE) if self._readable else None

    async def _wait_for_data(self, limit: int) -> bytes:
        """Take up to `limit` bytes once there are some; cancelled, it has taken nothing."""
        connection = self._connection
        endpoint = connection._endpoint
        reading = endpoint._reading
        self._receiving = True
        try:
            endpoint._had_word()
            while True:
                if connection.close_reason is None:
                    self._receiver = trio.lowlevel.current_task()
                    if reading.is_free:
                        await reading.read_until_resumed(self._abort_receiving)
                    else:
                        await trio.lowlevel.wait_task_rescheduled(self._abort_receiving)
                if self._closed or connection.close_reason is not None:
                    self._require_open_for_receiving()
                data = self._take(limit)
                if data is not None:
                    return data
        finally:
            self._receiving = False

    def _abort_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _take(self, limit: int) -> bytes | None:
        if self._receive_ended:
            return b""
        if self._reset_code is not None:
            raise StreamReset(self._reset_code)
        connection = self._connection
        try:
            data = connection._core.read(self.stream_id, limit)
        except StreamReset as reset:
            self._reset_code = reset.code
            connection._endpoint._flush_soon()
            raise
        if data is None:
            self._readable = False
        elif not data or connection._core.at_end(self.stream_id):
            self._receive_ended = True
        # There may be new credit worth telling the peer, or an ACK, should the application have nothing to say.
        connection._endpoint._flush_soon()
        return data

    @property
    def at_end(self) -> bool:
        """Whether nothing but the end is left to receive: all bytes have arrived and were taken."""
        if self._peeked or self._reset_code is not None:
            return False
        return self._receive_ended or (self._readable and self._connection._core.at_end(self.stream_id))

    async def peek(self, size: int) -> bytes:
        """Wait for the next `size` bytes, or the end, and return them without taking them.

        Meant for telling protocols apart by their first few bytes. Raises as `receive_some` does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._require_open_for_receiving()
        while len(self._peeked) < size and not self._receive_ended:
            data = self._take(size - len(self._peeked))
            self._peeked += await self._wait_for_data(size - len(self._peeked)) if data is None else data
        return self._peeked[:size]

    async def receive_all(self, *, limit: int) -> bytes:
        """Receive everything up to the end of the stream.

        Raises as `receive_some` does, and `RemoteProtocolError` if more than `limit` bytes come.
        """
        chunks = []
        size = 0
        while data := await self.receive_some():
            chunks.append(data)
            size += len(data)
            if size > limit:
                raise RemoteProtocolError(f"the peer sent more than {limit} bytes on stream {self.stream_id}")
            if self._receive_ended and not self._peeked:
                break
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def stop(self, code: int = 0) -> None:
        """Ask the peer to stop sending (RFC 9000 §19.5); what still arrives is thrown away."""
        if not self._closed and self._connection.close_reason is None and not self._receive_ended:
            self._connection._core.stop(self.stream_id, code)
            self._receive_ended = True
            self._peeked = b""
            self._connection._endpoint._flush_soon()
            self._wake_receiver()

    def _require_open_for_receiving(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")
        self._connection._require_not_closed_here()


class QuicStream(QuicSendStream, QuicReceiveStream, trio.abc.HalfCloseableStream):
    """A bidirectional QUIC stream.

    `stream_id` is its number in the connection (RFC 9000 §2.1). Iterating over it yields chunks up to the end.
    """

    __slots__ = ()
    _sends = True
    _receives = True
