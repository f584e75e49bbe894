"""Two endpoint cores joined by a simulated link in virtual time: the stage on which QUIC stories are told."""

from __future__ import annotations

import contextlib
import heapq
import random
from collections.abc import Callable

import attrs

from a2al_trio.errors import ConnectionLost, StreamReset
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.endpoint import QuicEndpointCore
from a2al_trio.quic.events import (
    ConnectionEarly,
    ConnectionEnded,
    ConnectionReady,
    QuicEvent,
    StreamOpened,
    StreamReadable,
)
from a2al_trio.quic.tls import ClientTls, ServerTls

from .tls_support import client_tls, drbg, server_tls

CLIENT = SocketAddress("10.0.0.1", 1000)
SERVER = SocketAddress("10.0.0.2", 2000)


@attrs.define
class Link:
    """What happens to datagrams on their way; probabilities from 0 to 1, times in seconds."""

    delay: float = 0.010
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    mtu: int = 1 << 16
    ecn: bool = True


class Side:
    """One endpoint, with everything its core reported."""

    def __init__(self, name: str, address: SocketAddress, core: QuicEndpointCore) -> None:
        self.name = name
        self.address = address
        self.core = core
        self.events: list[QuicEvent] = []
        self.received: dict[tuple[QuicConnectionCore, int], bytearray] = {}
        self.finished: set[tuple[QuicConnectionCore, int]] = set()
        self.on_event: Callable[[QuicEvent], None] | None = None
        self.auto_read = True
        self.datagrams = 0
        self.sizes: list[int] = []

    @property
    def connection(self) -> QuicConnectionCore:
        """The newest connection that became ready, or brought early data."""
        return next(
            event.connection for event in reversed(self.events) if isinstance(event, ConnectionReady | ConnectionEarly)
        )

    @property
    def ended(self) -> ConnectionEnded | None:
        return next((event for event in self.events if isinstance(event, ConnectionEnded)), None)

    def opened(self) -> list[int]:
        return [event.stream_id for event in self.events if isinstance(event, StreamOpened)]


class Pair:
    """A client and a server; `run` moves virtual time until nothing happens any more, or a condition holds."""

    def __init__(
        self,
        *,
        config: QuicConfig | None = None,
        client_config: QuicConfig | None = None,
        server: ServerTls | None = None,
        link: Link | None = None,
        seed: int = 0,
        batch: bool = True,
        answers_first: bool = False,
    ) -> None:
        """`answers_first` lets the cores put off what an answer does not depend on, as the driver does."""
        self.now = 1000.0
        self.link = link or Link()
        self.random = random.Random(seed)
        self.batch = batch
        self.answers_first = answers_first
        config = config or QuicConfig()
        self.client = Side(
            "client", CLIENT, QuicEndpointCore(client_config or config, entropy=drbg(f"client{seed}"), now=self.now)
        )
        self.server = Side(
            "server", SERVER,
            QuicEndpointCore(config, server=server or server_tls(), entropy=drbg(f"server{seed}"), now=self.now),
        )  # fmt: skip
        self.queue: list[tuple[float, int, Side, Received]] = []
        self.sequence = 0
        self.steps = 0
        self.filter: Callable[[Side, bytes], bytes | None] | None = None

    def connect(
        self, tls: ClientTls | None = None, server_name: str | None = "server", **settings: object
    ) -> QuicConnectionCore:
        return self.client.core.connect(
            SERVER,
            tls=tls or client_tls(),
            server_name=server_name,
            now=self.now,
            **settings,  # type: ignore[arg-type]
        )

    def handshake(self, tls: ClientTls | None = None) -> tuple[QuicConnectionCore, QuicConnectionCore]:
        """Connect and wait until both sides are ready and confirmed."""
        connection = self.connect(tls)
        self.run(lambda: connection.handshake_confirmed or connection.closed)
        assert connection.handshake_confirmed, connection.close_reason
        return connection, self.server.connection

    def flush(self, side: Side) -> None:
        """Let a side send as the driver does, and take its events."""

        def send(transmit: Transmit) -> int:
            data, size = bytes(transmit.data), transmit.segment_size
            other = self.server if side is self.client else self.client
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            side.datagrams += len(pieces)
            side.sizes += [len(piece) for piece in pieces]
            self._send(side, other, pieces, size, transmit.ecn, transmit.destination)
            return len(data)

        side.core.send_small(send, self.now)
        side.core.catch_up()
        for transmit in side.core.datagrams_to_send(self.now):
            send(transmit)
        self._take_events(side)

    def _send(self, side: Side, other: Side, pieces: list[bytes], size: int, ecn: int, to: SocketAddress) -> None:
        link, draw = self.link, self.random.random
        if to != other.address:
            return  # the peer has moved away from there
        kept: list[bytes] = []
        for piece in pieces:
            if len(piece) > link.mtu or draw() < link.loss:
                continue
            if self.filter is not None:
                changed = self.filter(side, piece)
                if changed is None:
                    continue
                piece = changed
            if draw() < link.corrupt:
                at = self.random.randrange(len(piece))
                piece = piece[:at] + bytes((piece[at] ^ 1 << self.random.randrange(8),)) + piece[at + 1 :]
            copies = 2 if draw() < link.duplicate else 1
            if draw() < link.reorder or not self.batch or len(piece) > size:
                for _ in range(copies):
                    self._deliver(
                        other,
                        side,
                        piece,
                        len(piece),
                        ecn,
                        link.delay * (0.5 + 2 * draw()) if link.reorder else link.delay,
                    )
            else:
                kept += [piece] * copies
        # GRO hands over runs of equal size, the last may be shorter.
        run: list[bytes] = []
        for piece in kept:
            if run and (len(piece) > len(run[0]) or len(run[-1]) < len(run[0])):
                self._deliver(other, side, b"".join(run), len(run[0]), ecn, link.delay)
                run = []
            run.append(piece)
        if run:
            self._deliver(other, side, b"".join(run), len(run[0]), ecn, link.delay)

    def _deliver(self, to: Side, source: Side, data: bytes, size: int, ecn: int, delay: float) -> None:
        self.sequence += 1
        received = Received(
            memoryview(bytearray(data)), size, source.address, ecn if self.link.ecn else 0, to.address.host
        )
        heapq.heappush(self.queue, (self.now + delay, self.sequence, to, received))

    def _take_events(self, side: Side) -> None:
        while (event := side.core.next_event()) is not None:
            side.events.append(event)
            if side.on_event is not None:
                side.on_event(event)
            if isinstance(event, StreamReadable) and side.auto_read:
                self.read(side, event.connection, event.stream_id)

    def read(self, side: Side, connection: QuicConnectionCore, stream_id: int) -> None:
        """Read a stream dry, unless it or its connection is broken."""
        key = (connection, stream_id)
        buffer = side.received.setdefault(key, bytearray())
        with contextlib.suppress(ConnectionLost, StreamReset):
            while (data := connection.read(stream_id, 1 << 16)) is not None:
                if not data:
                    side.finished.add(key)
                    return
                buffer += data

    def settle(self) -> None:
        for _ in range(100):
            if not (self.client.core.transmit_due or self.server.core.transmit_due):
                break
            self.flush(self.client)
            self.flush(self.server)
        else:
            raise AssertionError("the cores never stop sending")
        self._take_events(self.client)
        self._take_events(self.server)

    def run(self, until: Callable[[], bool] | None = None, *, seconds: float = 120.0, steps: int = 200_000) -> None:
        """Advance until `until()` holds, or nothing is left to happen, or `seconds` have passed."""
        deadline = self.now + seconds
        self.settle()
        for _ in range(steps):
            if until is not None and until():
                return
            timeouts = [side.core.next_timeout() for side in (self.client, self.server)]
            instants = [value for value in timeouts if value is not None]
            if self.queue:
                instants.append(self.queue[0][0])
            if not instants or min(instants) > deadline:
                self.now = deadline
                return
            self.now = max(self.now, min(instants))
            while self.queue and self.queue[0][0] <= self.now:
                _, _, side, received = heapq.heappop(self.queue)
                if self.answers_first:
                    side.core.receive_to_answer(received, self.now)
                else:
                    side.core.receive_datagrams(received, self.now)
                self._take_events(side)
                self.flush(side)
            for side in (self.client, self.server):
                side.core.handle_timeout(self.now)
            self.settle()
        raise AssertionError(f"still busy after {steps} steps at {self.now}")

    def assert_nothing_left(self) -> None:
        """Both endpoints forgot everything."""
        for side in (self.client, self.server):
            core = side.core
            assert not core.connections
            assert not core._by_cid
            assert not core._cids_of
            assert not core._reset_tokens
            assert not core._reset_tokens_of
            assert not core._armed
            assert not core._touched
            assert core.next_timeout() is None
