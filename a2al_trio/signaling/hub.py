"""The hub: registrations on `/signal`, calls and relayed rooms on `/ice` (spec 06 §4), over plain HTTP or TLS.

Byte-compatible with the reference, and kinder where the wire allows (D8): those who wait are read, so their pings are
answered and their leaving is noticed; every close carries a close frame; one client's weight is bounded.
"""

from __future__ import annotations

import ssl
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from a2al_trio.errors import ConfigurationError
from a2al_trio.net.address import SocketAddress
from a2al_trio.signaling.errors import SignalingDecodeError
from a2al_trio.signaling.frames import MAX_MESSAGE_SIZE, SUBPROTOCOL, Frame, FrameType, decode_frame, encode_frame
from a2al_trio.signaling.http import MAX_REQUEST_SIZE, Request, decode_request, refusal
from a2al_trio.signaling.registration import is_proven
from a2al_trio.signaling.rooms import CallRate, HubLimits, HubStats, Registry, Rooms, Seat
from a2al_trio.signaling.websocket import PEER_ERRORS

__all__ = ["Hub", "serve_hub"]

_CLOSE_LIMIT: Final = 1.0
_POLICY: Final = 1008
_CLOSED_BY_PARTNER: Final = "the partner left"

_Ending: TypeAlias = tuple[int, str]
"""Close code and reason (RFC 6455 §7.4)."""


@attrs.define(eq=False)
class _Client:
    """One WebSocket of a client. Cancelling `scope` ends it from another task.

    In a room: `backlog` is what it said before it was paired, `partner` whom it was paired with.
    """

    socket: WebSocketConnection
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    backlog: deque[str | bytes] = attrs.Factory(deque)
    backlog_bytes: int = 0
    partner: _Client | None = None
    wake: trio.Event = attrs.Factory(trio.Event)
    cut: bool = False

    async def write(self, message: str | bytes, within: float) -> bool:
        """Send a message; False if the client is gone, or too slow to be waited for, which ends it."""
        try:
            with trio.fail_after(within):
                await self.socket.send_message(message)
        except ConnectionClosed:
            return False
        except trio.TooSlowError:
            self.cut = True
            self.scope.cancel()
            return False
        return True

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye, unless the last message was cut short and anything more would be read as part of it."""
        if not self.cut:
            with trio.move_on_after(_CLOSE_LIMIT, shield=True):
                await self.socket.aclose(code, reason)


class _ReplayedStream(trio.abc.Stream):
    """A stream whose first bytes were already read to look at the request."""

    def __init__(self, data: bytes, stream: trio.abc.Stream) -> None:
        self._data = data
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self._data:
            await trio.lowlevel.checkpoint()
            size = len(self._data) if max_bytes is None else max_bytes
            data, self._data = self._data[:size], self._data[size:]
            return data
        return await self._stream.receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Hub:
    """The state of one hub, and how it treats one connection. `serve_hub` binds it to a port."""

    def __init__(self, limits: HubLimits | None = None, *, unix_time: Callable[[], float] = time.time) -> None:
        self.limits = limits or HubLimits()
        self._unix_time = unix_time
        self._registry: Registry[_Client] = Registry(self.limits.agents_per_socket)
        self._rooms: Rooms[_Client] = Rooms()
        self._rate = CallRate(self.limits.calls_per_minute)
        self._sockets: Counter[str] = Counter()
        self._connections = 0
        self._relaying = 0
        self._stats = HubStats()

    @property
    def stats(self) -> HubStats:
        """The counters as they are now."""
        return attrs.evolve(
            self._stats,
            callees_connected=self._registry.sockets,
            aids_registered=self._registry.agents,
            sessions_active=self._rooms.waiting + self._relaying // 2,
        )

    async def serve_stream(self, stream: trio.abc.Stream, address: str) -> None:
        """Serve one connection from a client at IP `address` to its end, and close the stream."""
        limits = self.limits
        if self._connections >= limits.sockets or self._sockets[address] >= limits.sockets_per_address:
            self._stats.refused_total += 1
            await trio.aclose_forcefully(stream)
            return
        self._sockets[address] += 1
        self._connections += 1
        try:
            await self._serve_counted(stream, address)
        except* PEER_ERRORS:
            pass  # the client is gone, which is how every connection ends, or not one to talk to
        finally:
            self._connections -= 1
            self._sockets[address] -= 1
            if not self._sockets[address]:
                del self._sockets[address]
            await trio.aclose_forcefully(stream)

    async def _serve_counted(self, stream: trio.abc.Stream, address: str) -> None:
        request: Request | None = None
        data = bytearray()
        with trio.move_on_after(self.limits.request_within):
            while b"\r\n\r\n" not in data and len(data) <= MAX_REQUEST_SIZE:
                received = await stream.receive_some()
                if not received:
                    return
                data += received
            request = decode_request(data)
            answer = refusal(request)
            if answer is not None:
                await stream.send_all(answer)
                return
        if request is None:
            return  # it took too long
        async with trio.open_nursery() as nursery:
            client: _Client | None = None
            with trio.move_on_after(self.limits.request_within):
                replayed = _ReplayedStream(bytes(data), stream)
                handshake = await wrap_server_stream(nursery, replayed, max_message_size=MAX_MESSAGE_SIZE)
                offered = SUBPROTOCOL in handshake.proposed_subprotocols
                client = _Client(await handshake.accept(subprotocol=SUBPROTOCOL if offered else None))
            if client is not None:
                await self._serve_client(client, request, address)
            nursery.cancel_scope.cancel()

    async def _serve_client(self, client: _Client, request: Request, address: str) -> None:
        ending: _Ending = (_POLICY, "too slow, or replaced by a newer join")
        try:
            with client.scope:
                if request.path == "/signal":
                    ending = await self._serve_callee(client, request.headers.get("host", ""))
                else:
                    ending = await self._serve_room(client, request, address)
        except ConnectionClosed:
            return
        finally:
            self._registry.forget(client)
            await client.close(*ending)

    # --- /signal ----------------------------------------------------------------------------------------------

    async def _serve_callee(self, client: _Client, authority: str) -> _Ending:
        acknowledgement = encode_frame(Frame(type=FrameType.ACKNOWLEDGE))
        while True:
            with trio.move_on_after(self.limits.register_within) as limit:
                message = await client.socket.get_message()
            if limit.cancelled_caught:
                return _POLICY, "no registration in time"
            frame = _registration(message)
            if frame is None:
                continue
            proven = self._registry.is_proven(frame.agent, client) or is_proven(
                frame.agent, frame.signature, authority, unix_time=int(self._unix_time())
            )
            if self.limits.proven_only and not proven:
                return _POLICY, "the registration is not proven"
            if not self._registry.register(frame.agent, client, proven=proven):
                return _POLICY, "too many agents on one connection"
            await client.write(acknowledgement, self.limits.write_within)

    # --- /ice -------------------------------------------------------------------------------------------------

    async def _serve_room(self, client: _Client, request: Request, address: str) -> _Ending:
        query = request.query
        seat = Seat(query["room"], query.get("caller", ""), query.get("target", ""), query.get("callee", ""))
        if seat.is_caller:
            refused = await self._announce(client, seat, address)
            if refused is not None:
                return refused
        partner, replaced = self._rooms.join(seat, client)
        if replaced is not None:
            replaced.scope.cancel()
        if partner is not None:
            client.partner, partner.partner = partner, client
            self._stats.sessions_total += 1
            partner.wake.set()
        else:
            await self._wait_for_partner(seat, client)
        if client.partner is None:
            return 1000, "nobody joined"
        return await self._relay(client, client.partner)

    async def _announce(self, client: _Client, seat: Seat, address: str) -> _Ending | None:
        """Tell the callee of a call; returns how the caller's connection ends if that cannot be."""
        callee = self._registry.find(seat.target)
        if callee is None:
            self._stats.noagent_total += 1
            await client.write(encode_frame(Frame(type=FrameType.NO_AGENT)), self.limits.write_within)
            return 1000, "the agent is not registered here"
        if not self._rate.allow(address, seat.target, trio.current_time()):
            self._stats.refused_total += 1
            return _POLICY, "too many calls"
        incoming = Frame(type=FrameType.INCOMING, room=seat.room, caller=seat.caller, target=seat.target)
        if not await callee.write(encode_frame(incoming), self.limits.write_within):
            return 1000, "the agent does not answer"
        return None

    async def _wait_for_partner(self, seat: Seat, client: _Client) -> None:
        """Wait in the room until somebody joins or the client leaves or says too much, listening to it."""
        try:
            with trio.move_on_after(self.limits.partner_within):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._collect, client)
                    await client.wake.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._rooms.leave(seat, client)

    async def _collect(self, client: _Client) -> None:
        try:
            while client.backlog_bytes <= self.limits.waiting_bytes:
                message = await client.socket.get_message()
                client.backlog.append(message)
                client.backlog_bytes += len(message)
        except ConnectionClosed:
            pass
        client.wake.set()

    async def _relay(self, client: _Client, partner: _Client) -> _Ending:
        """Pass on what the client says; its partner's own task does the other direction.

        Whichever end leaves first takes the other along.
        """
        self._relaying += 1
        try:
            while client.backlog:
                if not await partner.write(client.backlog.popleft(), self.limits.relay_write_within):
                    return 1000, _CLOSED_BY_PARTNER
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping, client)
                await self._forward(client, partner)
                nursery.cancel_scope.cancel()
        finally:
            self._relaying -= 1
            await partner.close(1000, _CLOSED_BY_PARTNER)
        return 1000, _CLOSED_BY_PARTNER

    async def _forward(self, client: _Client, partner: _Client) -> None:
        try:
            while await partner.write(await client.socket.get_message(), self.limits.relay_write_within):
                pass
        except ConnectionClosed:
            return

    async def _ping(self, client: _Client) -> None:
        """End a relay whose client vanished without a word."""
        try:
            while True:
                await trio.sleep(self.limits.ping_interval)
                with trio.fail_after(self.limits.ping_interval):
                    await client.socket.ping()
        except (ConnectionClosed, trio.TooSlowError):
            client.scope.cancel()


def _registration(message: str | bytes) -> Frame | None:
    """The registration in a message; None for every other message."""
    try:
        frame = decode_frame(message if isinstance(message, bytes) else message.encode())
    except SignalingDecodeError:
        return None
    return frame if frame.type == FrameType.REGISTER and frame.agent else None


async def serve_hub(
    host: str | None,
    port: int,
    *,
    hub: Hub | None = None,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[list[SocketAddress]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a hub on a TCP port until cancelled; `task_status` gets the addresses it listens on.

    `host` None means all addresses, `port` 0 a free port. Raises `ConfigurationError` if the port cannot be had.
    """
    hub = hub or Hub()
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        where = f"{host}:{port}" if host else f"port {port}"
        raise ConfigurationError(
            f"the hub cannot listen on TCP {where}: {error.strerror or error}; choose another address or port"
        ) from error
    addresses = [SocketAddress.of(*listener.socket.getsockname()[:2]) for listener in listeners]

    async def handle(stream: trio.SocketStream) -> None:
        try:
            address = SocketAddress.of(*stream.socket.getpeername()[:2]).host
        except OSError:
            await trio.aclose_forcefully(stream)
            return
        secure = stream if tls is None else trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        await hub.serve_stream(secure, address)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started(addresses)
