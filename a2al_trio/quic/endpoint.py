"""A QUIC endpoint as a sans-IO object: many connections on one socket (RFC 9000 §5.2).

Routes datagrams to connections by connection ID, accepts new ones, and answers without state where it can: Version
Negotiation, Retry, stateless reset. Bytes nobody can make sense of cost a table look-up and are forgotten.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
from collections import deque
from typing import TYPE_CHECKING

from a2al_trio.net.datagram import Received, Transmit
from a2al_trio.quic.config import QuicConfig, RetryPolicy
from a2al_trio.quic.connection import QuicConnectionCore
from a2al_trio.quic.errors import PacketDecodeError, TransportErrorCode
from a2al_trio.quic.events import QuicEvent
from a2al_trio.quic.frames import encode_connection_close
from a2al_trio.quic.packet import (
    FIXED_BIT,
    MIN_INITIAL_SIZE,
    Invariants,
    LongHeader,
    PacketType,
    decode_invariants,
    decode_long_header,
    decode_retry,
    decode_version_negotiation,
    encode_long_header,
    encode_retry,
    encode_version_negotiation,
)
from a2al_trio.quic.packet_builder import PacketBuffer, mask_long_header
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2, initial_keys
from a2al_trio.quic.token import RetryToken, TokenKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from a2al_trio.machine import Entropy
    from a2al_trio.net.address import SocketAddress
    from a2al_trio.quic.paths import Path
    from a2al_trio.quic.tls import ClientTls, ServerTls, SessionTicket

__all__ = ["QuicEndpointCore"]

MAX_STATELESS = 64
"""Answers without state that wait to be sent; more are dropped."""

MIN_RESET_SIZE = 21
"""Smallest packet that looks like a stateless reset (RFC 9000 §10.3)."""

RESETS_PER_SECOND = 100
SAMPLE_END = 4 + 16
"""A short header packet has at least this much after its connection ID, or cannot be unmasked."""


class QuicEndpointCore:
    """The machine behind one socket; see `a2al_trio.machine` for the verbs.

    `server` lets peers connect. `entropy` must be unpredictable. Connections stay in `connections` until nothing of
    them is needed any more.
    """

    def __init__(self, config: QuicConfig, *, server: ServerTls | None = None, entropy: Entropy, now: float) -> None:
        self.config = config
        self.connections: set[QuicConnectionCore] = set()
        self._server = server
        self._entropy = entropy
        self._cid_end = 1 + config.connection_id_length
        self._buffer = PacketBuffer()
        self._by_cid: dict[bytes, QuicConnectionCore] = {}
        self._cids_of: dict[QuicConnectionCore, set[bytes]] = {}
        self._reset_tokens: dict[bytes, QuicConnectionCore] = {}
        self._reset_tokens_of: dict[QuicConnectionCore, set[bytes]] = {}
        self._reset_key = entropy(32)
        self._token_keys = TokenKeys(entropy)
        self.events: deque[QuicEvent] = deque()
        """What `next_event` has to give, the oldest first; for a driver that has many to take."""
        self.emit: Callable[[QuicEvent], None] = self.events.append
        self._touched: dict[QuicConnectionCore, None] = {}
        self._untimed: dict[QuicConnectionCore, None] = {}
        self._behind: QuicConnectionCore | None = None
        self._deadlines: list[tuple[float, int, QuicConnectionCore]] = []
        self._armed: dict[QuicConnectionCore, float] = {}
        self._sequence = 0
        self._stateless: deque[Transmit] = deque()
        self._incoming_handshakes: set[QuicConnectionCore] = set()
        self._resets_until = now
        self._resets_left = RESETS_PER_SECOND

    # Commands

    def connect(
        self,
        address: SocketAddress,
        *,
        tls: ClientTls,
        server_name: str | None,
        now: float,
        token: bytes = b"",
        ticket: SessionTicket | None = None,
    ) -> QuicConnectionCore:
        """Begin a connection; `ConnectionReady` or `ConnectionEnded` follows.

        `token` is what an earlier connection got as `NewTokenReceived`, `ticket` as `TicketReceived`.
        """
        original_cid = self._entropy(8)
        connection = QuicConnectionCore(
            self.config, is_client=True, router=self, buffer=self._buffer, entropy=self._entropy, address=address,
            local_host=None, peer_cid=original_cid, original_cid=original_cid, version=self.config.versions[0], now=now,
        )  # fmt: skip
        connection.initial_token = token
        self.connections.add(connection)
        connection.start(tls, server_name=server_name, ticket=ticket, now=now)
        return connection

    def refuse(self, connection: QuicConnectionCore, now: float) -> None:
        """Close a connection that nobody can take care of, with CONNECTION_REFUSED."""
        connection.close_transport(TransportErrorCode.CONNECTION_REFUSED, "no room for another connection", now)

    def close_all(self, code: int, reason: str, now: float) -> None:
        """Close every connection with an application error code."""
        for connection in list(self.connections):
            connection.close(code, reason, now)

    # Receiving

    def receive_datagrams(self, batch: Received, now: float) -> None:
        """Take one read's datagrams, for one connection or many; see `Machine`."""
        self.receive_to_answer(batch, now)
        self.catch_up()

    def receive_to_answer(self, batch: Received, now: float) -> None:
        """As `receive_datagrams`, but what an answer does not depend on may be left for `catch_up`.

        That is an ACK which comes with requests or answers. In a loop that hands over what was read, lets the
        application answer and sends, `catch_up` has its place behind the sending.
        """
        if self._behind is not None:
            self.catch_up()
        if len(batch.data) > batch.segment_size:
            self._receive_many(batch, now)
            return
        only = bytes(batch.data)
        if len(only) < MIN_RESET_SIZE:
            return
        connection = self._by_cid.get(only[1 : self._cid_end])
        if connection is None or only[0] & 0xC0 != FIXED_BIT:
            self._receive_one(only, batch, now)
            return
        path = connection.paths.current
        if path.peer_address != batch.source or path.local_host != batch.local_host:
            self._deliver(connection, only, batch, now)
            return
        if not connection.intake.take_datagram(only, path, batch.ecn, now):
            self._on_not_genuine(connection, only, now)
        self.touch(connection)

    def catch_up(self) -> bool:
        """Do what `receive_to_answer` left; returns whether there is something to send."""
        connection, self._behind = self._behind, None
        if connection is not None and connection in self.connections:
            connection.intake.catch_up()
            self._untimed[connection] = None
            transmitter = connection.transmitter
            if connection.closed or not transmitter.is_quiet or transmitter.frames.has_control:
                self.touch(connection)
        return self.transmit_due

    def _receive_many(self, batch: Received, now: float) -> None:
        data, size, cid_end = batch.data, batch.segment_size, self._cid_end
        if not data[0] & 0x80 and size >= cid_end + SAMPLE_END:
            connection = self._by_cid.get(bytes(data[1:cid_end]))
            path = connection.migration.path_for(batch.source, batch.local_host) if connection is not None else None
            if connection is not None and path is not None:
                self._receive_run(connection, batch, path=path, now=now)
                return
        for datagram in batch.datagrams():
            self._receive_one(datagram, batch, now)

    def _receive_run(self, connection: QuicConnectionCore, batch: Received, *, path: Path, now: float) -> None:
        data, size = batch.data, batch.segment_size
        if data.readonly:
            data = memoryview(bytearray(data))
        last = len(data) % size
        rest = b""
        if last and last < 1 + self.config.connection_id_length + SAMPLE_END:
            rest = bytes(data[-last:])
            data = data[:-last]
        failed = connection.intake.take_run(data, size, path, ecn=batch.ecn, now=now)
        self.touch(connection)
        if rest:
            failed.append(rest)
        for packet in failed:
            self._receive_one(packet, batch, now, counted=True)

    def _receive_one(self, datagram: memoryview | bytes, batch: Received, now: float, *, counted: bool = False) -> None:
        if len(datagram) < MIN_RESET_SIZE:
            return
        if datagram[0] & 0x80:
            self._receive_long(datagram, batch, now)
            return
        if not datagram[0] & FIXED_BIT:
            return
        connection = self._by_cid.get(bytes(datagram[1 : 1 + self.config.connection_id_length]))
        if connection is None:
            connection = self._reset_tokens.get(bytes(datagram[-16:]))
            if connection is not None:
                connection.ending.on_stateless_reset(now)
            elif self._server is not None:
                self._send_stateless_reset(datagram, batch, now)
            return
        self._deliver(connection, datagram, batch, now, counted=counted)

    def _deliver(
        self,
        connection: QuicConnectionCore,
        datagram: memoryview | bytes,
        batch: Received,
        now: float,
        *,
        counted: bool = False,
    ) -> None:
        path = connection.paths.current
        if path.peer_address != batch.source or path.local_host != batch.local_host:
            known = connection.migration.path_for(batch.source, batch.local_host)
            if known is None:
                return
            path = known
        genuine = connection.intake.take_datagram(datagram, path, batch.ecn, now, counted=counted)
        if not genuine and not datagram[0] & 0x80:
            self._on_not_genuine(connection, datagram, now)
        self.touch(connection)

    def _on_not_genuine(self, connection: QuicConnectionCore, datagram: memoryview | bytes, now: float) -> None:
        """A short header packet did not open: see whether it is a stateless reset."""
        if self._reset_tokens.get(bytes(datagram[-16:])) is connection:
            connection.ending.on_stateless_reset(now)

    def _receive_long(self, datagram: memoryview | bytes, batch: Received, now: float) -> None:
        try:
            invariants = decode_invariants(datagram)
            connection = self._by_cid.get(invariants.destination_cid)
            if connection is not None and invariants.version == 0:
                if connection.is_client:
                    connection.establishment.on_version_negotiation(decode_version_negotiation(datagram), now)
                    self.touch(connection)
                return
            if connection is not None and connection.is_client and self._is_retry(datagram, invariants):
                retry = decode_retry(datagram, original_destination_cid=connection.handshake.original_cid)
                connection.establishment.on_retry(retry)
                self.touch(connection)
                return
            if connection is not None:
                self._deliver(connection, datagram, batch, now)
            elif self._server is not None and len(datagram) >= MIN_INITIAL_SIZE and invariants.version != 0:
                self._receive_first(datagram, invariants, batch, now)
        except PacketDecodeError:
            return

    @staticmethod
    def _is_retry(datagram: memoryview | bytes, invariants: Invariants) -> bool:
        bits = datagram[0] >> 4 & 3
        return bits == (0 if invariants.version == VERSION_2 else 3) and invariants.version in (VERSION_1, VERSION_2)

    # Accepting

    def _receive_first(self, datagram: memoryview | bytes, invariants: Invariants, batch: Received, now: float) -> None:
        """A datagram for no connection we know: perhaps the beginning of one."""
        if invariants.version not in self.config.versions:
            self._send_version_negotiation(invariants, batch)
            return
        header = decode_long_header(datagram, invariants)
        if header.packet_type is not PacketType.INITIAL or len(header.destination_cid) < 8:
            return
        retry: RetryToken | None = None
        validated = False
        if header.token:
            token = self._token_keys.open(header.token, batch.source, header.version, now)
            if isinstance(token, RetryToken):
                if token.retry_source_cid != header.destination_cid:
                    self._refuse(header, batch, TransportErrorCode.INVALID_TOKEN)
                    return
                retry = token
            elif token is None and TokenKeys.looks_like_retry(header.token):
                self._refuse(header, batch, TransportErrorCode.INVALID_TOKEN)
                return
            validated = token is not None
        unfinished = len(self._incoming_handshakes)
        if not validated and self._wants_retry(unfinished):
            self._send_retry(header, batch, now)
            return
        if unfinished >= self.config.max_incoming_handshakes or len(self.connections) >= self.config.max_connections:
            self._refuse(header, batch, TransportErrorCode.CONNECTION_REFUSED)
            return
        self._accept(datagram, header, batch, retry=retry, validated=validated, now=now)

    def _wants_retry(self, unfinished: int) -> bool:
        policy = self.config.retry
        return policy is RetryPolicy.ALWAYS or (
            policy is RetryPolicy.UNDER_LOAD and unfinished >= self.config.retry_threshold
        )

    def _accept(
        self,
        datagram: memoryview | bytes,
        header: LongHeader,
        batch: Received,
        *,
        retry: RetryToken | None,
        validated: bool,
        now: float,
    ) -> None:
        assert self._server is not None
        connection = QuicConnectionCore(
            self.config, is_client=False, router=self, buffer=self._buffer, entropy=self._entropy, address=batch.source,
            local_host=batch.local_host, peer_cid=header.source_cid,
            original_cid=header.destination_cid if retry is None else retry.original_destination_cid,
            version=header.version, now=now,
        )  # fmt: skip
        connection.start_server(
            self._server,
            initial_cid=header.destination_cid,
            retry_cid=None if retry is None else header.destination_cid,
            validated=validated,
        )
        self._by_cid[header.destination_cid] = connection
        self._cids_of[connection].add(header.destination_cid)
        self.connections.add(connection)
        self._incoming_handshakes.add(connection)
        self._deliver(connection, datagram, batch, now)
        if connection.intake.packets == 0:
            # Not even the first packet was genuine: keep nothing of it.
            self.forget(connection)

    # Answers without state

    def _answer(self, data: bytes | bytearray, batch: Received) -> None:
        if len(self._stateless) < MAX_STATELESS:
            self._stateless.append(Transmit(data, len(data), batch.source, 0, batch.local_host))

    def _send_version_negotiation(self, invariants: Invariants, batch: Received) -> None:
        versions = self.config.versions
        if self.config.grease:
            # A reserved version keeps clients tolerant (RFC 9000 §6.3).
            versions = (*versions, int.from_bytes(self._entropy(4), "big") & 0xF0F0F0F0 | 0x0A0A0A0A)
        packet = encode_version_negotiation(
            invariants.source_cid, invariants.destination_cid, versions, self._entropy(1)[0] & 0x3F
        )
        self._answer(packet, batch)

    def _send_retry(self, header: LongHeader, batch: Received, now: float) -> None:
        source_cid = self._entropy(self.config.connection_id_length)
        if len(source_cid) < 8:
            source_cid += self._entropy(8 - len(source_cid))
        token = self._token_keys.seal_retry(
            batch.source, header.version, RetryToken(header.destination_cid, source_cid), now
        )
        packet = encode_retry(
            header.version, header.source_cid, source_cid, original_destination_cid=header.destination_cid, token=token
        )
        self._answer(packet, batch)

    def _refuse(self, header: LongHeader, batch: Received, code: TransportErrorCode) -> None:
        """Answer a first packet with CONNECTION_CLOSE, without keeping anything (RFC 9000 §5.2.2)."""
        keys = initial_keys(header.destination_cid, header.version).server
        payload = encode_connection_close(code, "", is_application=False)
        packet_header = encode_long_header(
            header.version, PacketType.INITIAL, header.source_cid, header.destination_cid,
            packet_number=0, payload_size=len(payload),
        )  # fmt: skip
        packet = bytearray(packet_header + keys.seal(0, packet_header, payload))
        mask_long_header(packet, keys, 0, len(packet_header) - 4)
        self._answer(packet, batch)

    def _send_stateless_reset(self, datagram: memoryview | bytes, batch: Received, now: float) -> None:
        """Say that the connection is unknown here (RFC 9000 §10.3): smaller than what came, and not too often."""
        if now >= self._resets_until:
            self._resets_until, self._resets_left = now + 1.0, RESETS_PER_SECOND
        size = min(len(datagram) - 1, 41)
        if size < MIN_RESET_SIZE or self._resets_left <= 0:
            return
        self._resets_left -= 1
        cid = bytes(datagram[1 : 1 + self.config.connection_id_length])
        noise = bytearray(self._entropy(size - 16))
        noise[0] = 0x40 | noise[0] & 0x3F
        self._answer(bytes(noise) + self._reset_token(cid), batch)

    def _reset_token(self, cid: bytes) -> bytes:
        return hmac.digest(self._reset_key, cid, hashlib.sha256)[:16]

    # Sending, time, events

    @property
    def transmit_due(self) -> bool:
        """Whether `datagrams_to_send` may have something to yield."""
        return bool(self._touched or self._stateless)

    def send_small(self, send: Callable[[Transmit], int], now: float) -> tuple[Transmit, int] | None:
        """Let `send` have the one datagram there is to send if it is small: a request, an answer, or a few of them.

        Returns the datagram and what `send` returned, the bytes it took; most of the bookkeeping is done in between,
        while the datagram travels. None says nothing: `datagrams_to_send` knows the rest, as long as `transmit_due`.
        """
        if len(self._touched) != 1 or self._stateless:
            return None
        (connection,) = self._touched
        transmitter = connection.transmitter
        sent = transmitter.small.send_lone(send, now)
        if sent is None:
            transmit = None if connection.closed else transmitter.small_datagram(now)
            if transmit is None:
                return None
            sent = transmit, send(transmit)
        if transmitter.is_quiet:
            self._settle(connection)
        return sent

    def datagrams_to_send(self, now: float) -> Generator[Transmit, None, None]:
        """Yield what to send now; a buffer is valid until the next one is asked for. May be closed at any yield."""
        self.catch_up()
        while self._stateless:
            yield self._stateless.popleft()
        while self._touched:
            connection = next(iter(self._touched))
            yield from connection.transmits(now)
            self._settle(connection)

    def _settle(self, connection: QuicConnectionCore) -> None:
        """The connection has said what it had to say."""
        self._touched.pop(connection, None)
        self._untimed[connection] = None
        connection.is_touched = False

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due next, or None."""
        self._arm()
        deadlines = self._deadlines
        while deadlines:
            deadline, _, connection = deadlines[0]
            if self._armed.get(connection) == deadline:
                return deadline
            heapq.heappop(deadlines)
        return None

    def _arm(self) -> None:
        """Put the deadlines of connections something happened to into the heap."""
        for pending in (self._untimed, self._touched):
            for connection in pending:
                if connection not in self.connections:
                    continue
                deadline = connection.next_timeout()
                armed = self._armed.get(connection)
                # A later deadline waits until the earlier one comes up: that saves a heap entry per packet.
                if armed is None or deadline < armed:
                    self._arm_at(connection, deadline)
        self._untimed.clear()

    def _arm_at(self, connection: QuicConnectionCore, deadline: float) -> None:
        if deadline == float("inf"):
            self._armed.pop(connection, None)
            return
        self._armed[connection] = deadline
        self._sequence += 1
        heapq.heappush(self._deadlines, (deadline, self._sequence, connection))

    def handle_timeout(self, now: float) -> None:
        """Do what was due at or before `now`."""
        self.catch_up()
        self._arm()
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            deadline, _, connection = heapq.heappop(deadlines)
            if self._armed.get(connection) != deadline:
                continue
            del self._armed[connection]
            due = connection.next_timeout()
            if due <= now:
                connection.handle_timeout(now)
                self.touch(connection)
            else:
                self._arm_at(connection, due)

    @property
    def has_events(self) -> bool:
        """Whether `next_event` has one."""
        return bool(self.events)

    def next_event(self) -> QuicEvent | None:
        """Take the oldest event, or None."""
        return self.events.popleft() if self.events else None

    # What connections ask for (Router)

    def touch(self, connection: QuicConnectionCore) -> None:
        """See Router."""
        if connection in self.connections:
            self._touched[connection] = None
            connection.is_touched = True

    def put_off(self, connection: QuicConnectionCore) -> None:
        """See Router."""
        self.catch_up()
        self._behind = connection

    def make_cid(self, connection: QuicConnectionCore) -> tuple[bytes, bytes]:
        """See Router."""
        cid = self._entropy(self.config.connection_id_length)
        while cid in self._by_cid:
            cid = self._entropy(self.config.connection_id_length)
        self._by_cid[cid] = connection
        self._cids_of.setdefault(connection, set()).add(cid)
        return cid, self._reset_token(cid)

    def release_cid(self, cid: bytes) -> None:
        """See Router."""
        connection = self._by_cid.pop(cid, None)
        if connection is not None:
            self._cids_of[connection].discard(cid)

    def watch_reset_tokens(self, connection: QuicConnectionCore, tokens: set[bytes]) -> None:
        """See Router."""
        for token in self._reset_tokens_of.get(connection, set()) - tokens:
            self._reset_tokens.pop(token, None)
        for token in tokens:
            self._reset_tokens[token] = connection
        self._reset_tokens_of[connection] = tokens

    def make_token(self, connection: QuicConnectionCore, now: float) -> bytes:
        """See Router."""
        return self._token_keys.seal_new_token(connection.peer_address, connection.version, now)

    def on_ready(self, connection: QuicConnectionCore) -> None:
        """See Router."""
        self._incoming_handshakes.discard(connection)
        if not connection.is_client:
            for cid in self._cids_of[connection] - set(connection.local_cids.all):
                self.release_cid(cid)  # the one the client had made up

    def forget(self, connection: QuicConnectionCore) -> None:
        """See Router."""
        self.connections.discard(connection)
        self._incoming_handshakes.discard(connection)
        for cid in self._cids_of.pop(connection, set()):
            self._by_cid.pop(cid, None)
        for token in self._reset_tokens_of.pop(connection, set()):
            self._reset_tokens.pop(token, None)
        self._armed.pop(connection, None)
        self._touched.pop(connection, None)
        self._untimed.pop(connection, None)
        connection.is_touched = False
