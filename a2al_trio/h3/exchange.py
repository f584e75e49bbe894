"""One request and its response on a QUIC stream, with content that streams both ways.

The content is QUIC's to hold: what the application does not read stays in the stream's window and slows the sender
down, what the peer does not read makes `send_data` wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

import trio

from a2al_trio.errors import ConnectionLost, LocalProtocolError, StreamReset
from a2al_trio.h3.core import JOINED_SIZE
from a2al_trio.h3.errors import ErrorCode, H3Error
from a2al_trio.h3.events import Head, MessageData, MessageEnd, RequestEvent, Trailers
from a2al_trio.h3.fields import Field, RequestHead, ResponseHead
from a2al_trio.h3.frames import DATA, frame_header
from a2al_trio.h3.memo import Section
from a2al_trio.quic import QuicStream

if TYPE_CHECKING:
    from a2al_trio.h3.session import H3Session

__all__ = ["ClientExchange", "ServerExchange"]

ENDS = (H3Error, StreamReset, ConnectionLost, trio.ClosedResourceError)
"""What ends an exchange that one of us did not end."""
Buffer = bytes | bytearray | memoryview
HeadT = TypeVar("HeadT", RequestHead, ResponseHead)


class _Exchange(Generic[HeadT]):
    """What both sides do. One task may send and one may receive at a time.

    All calls can be cancelled while they wait. A request that is there already, and content that came together with its
    head, are handed out without a checkpoint; to send is one.

    All calls raise, besides what they name:
        H3Error: the peer broke the protocol; without `stream_id` the whole connection has ended.
        StreamReset, StreamStopped: the peer gave this exchange up (codes of RFC 9114 §8.1).
        ConnectionLost, trio.ClosedResourceError: the connection ended, or was closed here.
    """

    __slots__ = (
        "_content",
        "_events",
        "_head_received",
        "_head_sent",
        "_over",
        "_reason",
        "_received_all",
        "_sent_all",
        "_session",
        "_stream",
        "is_tunnel",
        "trailers",
    )
    _leave_code = ErrorCode.REQUEST_CANCELLED
    _made_with_head = False
    """Whether who makes the exchange sends the head of our message."""

    def __init__(self, session: H3Session, stream: QuicStream, is_tunnel: bool | None = None) -> None:
        self._session: H3Session = session
        self._stream = stream
        # Most messages come whole, and all that is left to give out of them is the content. For the others there are
        # events: few, for content that came in a row is one. None as long as nothing has come.
        self._content = b""
        self._events: list[RequestEvent] | None = None
        self._head_sent = self._made_with_head
        self._sent_all = self._head_received = self._received_all = self._over = False
        self._reason: Exception | None = None
        self.is_tunnel = is_tunnel
        """Whether it is extended CONNECT (RFC 9220); None on a server until the head of the request has come."""
        self.trailers: tuple[Field, ...] = ()
        """The fields behind the content, once it has been received to its end."""

    @property
    def stream_id(self) -> int:
        """Number of the QUIC stream."""
        return self._stream.stream_id

    @property
    def complete(self) -> bool:
        """Whether both messages are over: ours was sent and the peer's received to its end."""
        return self._sent_all and self._received_all

    async def __aenter__(self) -> Self:
        return self

    def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        """Leave the exchange: finish a message that has begun, and stop what still comes.

        A block that ends in an exception resets the stream instead.
        """
        self._end(error)
        return self._stream.aclose()

    def _end(self, error: BaseException | None) -> None:
        """Leave the exchange, up to the end of the stream itself."""
        if error is not None or not self._head_sent:
            self.reset(self._abandon_code(error))
        else:
            self._stop_receiving(self._leave_code)

    async def aclose(self) -> None:
        """Finish sending and take no more."""
        self._stop_receiving(self._leave_code)
        await self._stream.aclose()

    def reset(self, code: int = ErrorCode.REQUEST_CANCELLED) -> None:
        """Give the exchange up in both directions."""
        if not self._sent_all:
            self._sent_all = True
            self._stream.reset(code)
        self._stop_receiving(code)

    def _abandon_code(self, error: BaseException | None) -> ErrorCode:
        """What the peer is told when the exchange is left before its end, because of an error or for no reason."""
        return ErrorCode.REQUEST_CANCELLED

    def give_up(self, reason: Exception, code: int) -> None:
        """Reset the exchange; whoever uses it is told the reason."""
        self._reason = reason
        self.reset(code)

    async def abandon(self, code: int = ErrorCode.REQUEST_CANCELLED) -> None:
        """Give the exchange up and leave it; done at once even when cancelled."""
        self.reset(code)
        with trio.CancelScope(shield=True):
            await self.aclose()

    def _stop_receiving(self, code: int) -> None:
        if self._over:
            return
        self._over = True
        session, stream_id = self._session, self._stream.stream_id
        if not self._received_all:
            self._content = b""
            self._stream.stop(code)
            session.core.abandon(stream_id)
            session.unblock(stream_id)
            session.flush()
        elif self._events is not None:
            session.core.forget(stream_id)
        if session.requests.pop(stream_id, None) is not None and session.core.peer_goaway is not None:
            session.left()

    # --- sending -------------------------------------------------------------------------------------------------

    async def send_data(self, data: Buffer, *, end: bool = False) -> None:
        """Send content; waits while the peer takes none. `end` completes the message.

        If it is cancelled a part of a frame may have been sent: reset the exchange then.
        """
        self._require_head_sent()
        await self._send(b"", data, end=end)

    async def send_end(self, trailers: Iterable[Field] = ()) -> None:
        """Complete the message, with trailers if there are any."""
        self._require_head_sent()
        section = self._session.core.trailer_section(trailers)
        await self._send(self._encode(section) if section.fields else b"", end=True)

    def _require_head_sent(self) -> None:
        if not self._head_sent:
            raise LocalProtocolError("send the head of the message before its content")

    def require_sending(self) -> None:
        """Raise the reason, or LocalProtocolError, if no more can be sent."""
        if self._sent_all:
            raise self._reason or LocalProtocolError("this message was completed or given up already")

    def _encode(self, section: Section) -> bytes:
        """The frame of a field section; what it needs of the dynamic table goes out first."""
        core = self._session.core
        data = core.send_section(self.stream_id, section)
        if core.has_output:
            self._session.flush()
        return data

    async def _send(self, frames: bytes, content: Buffer = b"", *, end: bool) -> None:
        """Send whole frames, and content in another one."""
        if self._sent_all:
            self.require_sending()
        data: Buffer = frames
        try:
            if size := len(content):
                data = frames + frame_header(DATA, size)
                if size <= JOINED_SIZE:
                    data += content
                else:
                    await self._stream.send_all(data)
                    data = content
            if len(data):
                self._sent_all = end
                await self._stream.send_all(data, end=end)
            elif end:
                self._sent_all = True
                await self._stream.send_eof()
        except ENDS as error:
            self._settle(error)
            raise

    # --- receiving -----------------------------------------------------------------------------------------------

    def _take_first(self, data: bytes) -> HeadT | None:
        """Take the first bytes of the stream. If they are a whole message its head is returned, else events come."""
        if self._over:
            raise self._reason or trio.ClosedResourceError("this exchange was given up here")
        stream, core = self._stream, self._session.core
        head: HeadT | None = None
        if stream.at_end and (whole := core.receive_whole(stream.stream_id, data)) is not None:
            head, content = whole
            self._head_received = True
            if content:
                self._content = content
            else:
                self._received_all = True
        else:
            self._events = core.receive_request(stream.stream_id, data, end=stream.at_end)
        if core.qpack.due:
            self._session.flush()
        return head

    async def receive_head(self) -> HeadT:
        """Wait for the head of the message. After one with a status below 200 call again for the next."""
        if self._head_received:
            raise LocalProtocolError("the head of this message was received already")
        event = await self._next_event()
        if type(event) is not Head:
            raise LocalProtocolError("no further head comes")
        head = event.head
        self._head_received = type(head) is RequestHead or cast(ResponseHead, head).status >= 200
        return cast("HeadT", head)

    async def receive_some(self) -> bytes:
        """Wait for content and return a piece of it; `b""` is the end, `trailers` are there then."""
        if not self._head_received:
            raise LocalProtocolError("receive the head of the message before its content")
        if self._content:
            content, self._content, self._received_all = self._content, b"", True
            return content
        while not self._received_all:
            match await self._next_event():
                case MessageData(data=data):
                    return data
                case Trailers(fields=fields):
                    self.trailers = fields
                case MessageEnd():
                    self._received_all = True
        return b""

    async def receive_all(self, *, limit: int) -> bytes:
        """Receive the content to its end; raises LocalProtocolError if it is more than `limit` bytes."""
        chunks, size = [], 0
        while chunk := await self.receive_some():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise LocalProtocolError(f"the content is more than {limit} bytes; read it in pieces")
        return b"".join(chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._content:
            content, self._content, self._received_all = self._content, b"", True
            return content
        if not self._received_all and (chunk := await self.receive_some()):
            return chunk
        raise StopAsyncIteration

    async def _next_event(self) -> RequestEvent:
        if self._events:
            await trio.lowlevel.checkpoint_if_cancelled()
        if self._over:
            raise self._reason or trio.ClosedResourceError("this exchange was given up here")
        session, stream, stream_id = self._session, self._stream, self._stream.stream_id
        core = session.core
        try:
            while not self._events:
                if core.is_blocked(stream_id):
                    await session.wait_unblocked(stream_id)
                    data, end = b"", False
                else:
                    data = await stream.receive_some()
                    end = stream.at_end
                if self._over:
                    raise self._reason or trio.ClosedResourceError("this exchange was given up here")
                self._events = core.receive_request(stream_id, data, end=end)
                if core.has_output:
                    session.flush()
        except ENDS as error:
            self._settle(error)
            raise
        event = self._events.pop(0)
        if self._events and type(self._events[0]) is MessageEnd:
            self._received_all = True
        return event

    def _settle(self, error: Exception) -> None:
        """Do to the peer what an error asks for, and tell the caller the reason rather than the consequence."""
        if self._reason is not None:
            raise self._reason from None
        if isinstance(error, H3Error):
            if error.stream_id is None:
                self._session.fail(error)
            else:
                self.reset(error.code)
        elif isinstance(error, StreamReset):
            self._stop_receiving(self._abandon_code(error))
        elif isinstance(error, (trio.ClosedResourceError, ConnectionLost)) and self._session.failure is not None:
            raise self._session.failure from None


class ClientExchange(_Exchange[ResponseHead]):
    """A request we make; leave it with `async with`."""

    __slots__ = ()
    _made_with_head = True

    async def receive_response(self) -> ResponseHead:
        """Wait for the head of the final response, passing over interim ones."""
        if self._events is None and not self._head_received and not self._over:
            try:
                whole = self._take_first(await self._stream.receive_some())
            except ENDS as error:
                self._settle(error)
                raise
            if whole is not None:
                return whole
        while (head := await self.receive_head()).status < 200:
            pass
        return head


class ServerExchange(_Exchange[RequestHead]):
    """A request made of us; leave it with `async with`."""

    __slots__ = ()
    _leave_code = ErrorCode.NO_ERROR  # the answer is whole, the rest of the request is not needed

    async def receive_head(self) -> RequestHead:
        """Wait for the head of the request; raises H3Error if it does not come within 75 seconds."""
        head = None
        if self._events is None and not self._head_received and not self._over:
            try:
                data = self._stream.receive_nowait()
                if data is not None:
                    head = self._take_first(data)
            except ENDS as error:
                self._settle(error)
                raise
        if head is None:
            timer = self._session.head_timer
            timer.begin(self)
            try:
                head = await super().receive_head()
            finally:
                timer.end(self)
        self.is_tunnel = head.protocol != b""
        return head

    def _abandon_code(self, error: BaseException | None) -> ErrorCode:
        if not isinstance(error, trio.Cancelled):
            return ErrorCode.INTERNAL_ERROR
        # A client may repeat what nothing was done for (RFC 9114 §4.1.1).
        return ErrorCode.REQUEST_CANCELLED if self._head_received else ErrorCode.REQUEST_REJECTED

    def when_given_up(self, tell: Callable[[], object]) -> None:
        """Have `tell` called, once, when the client wants no answer any more or the connection ends.

        Without it that is noticed by what is sent or received next.
        """
        self._stream.on_given_up = tell

    async def send_response(self, head: ResponseHead, content: bytes = b"", *, end: bool = False) -> None:
        """Send a head, interim ones (status below 200) before the final one, with the first of the content.

        `end` says that there is no more of it.
        """
        if self._head_sent:
            raise LocalProtocolError("the head of this response was sent already")
        section = self._session.core.head_section(head)
        self._head_sent = head.status >= 200
        if len(content) != section.announced or self._sent_all:
            await self._send(self._encode(section), content, end=end)
            return
        self._sent_all = end
        try:
            await self._stream.send_all(section.opening + content, end=end)
        except ENDS as error:
            self._settle(error)
            raise
