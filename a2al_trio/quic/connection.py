"""One QUIC connection as a sans-IO object: the facade that wires the owners of its parts.

No protocol detail lives here. Packets come in through intake.py, frames go to the owners through
frame_handlers.py, transmit.py decides what to send, recovery.py what was lost, timers.py when to look again.

The driver's rule: call commands, feed datagrams through the endpoint, then let the endpoint send and drain its
events. Commands change state and return; they never send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from a2al_trio.errors import CloseCause, ConnectionLost, LocalProtocolError
from a2al_trio.quic.ack_frequency import BULK, AckFrequency
from a2al_trio.quic.acks import ELICITING_THRESHOLD
from a2al_trio.quic.cids import LocalConnectionIds, PeerConnectionIds
from a2al_trio.quic.config import RetryPolicy
from a2al_trio.quic.datagrams import DatagramQueues
from a2al_trio.quic.ending import Ending
from a2al_trio.quic.errors import FrameDecodeError, QuicTransportError, check_code
from a2al_trio.quic.establish import Establishment
from a2al_trio.quic.flow import ConnectionFlow, ReceiveWindow
from a2al_trio.quic.handshake import Handshake
from a2al_trio.quic.intake import Intake
from a2al_trio.quic.key_updates import KeyUpdates
from a2al_trio.quic.migration import Migration
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2, OneRttKeys, PacketKeys
from a2al_trio.quic.paths import PathSet
from a2al_trio.quic.recovery import LossRecovery
from a2al_trio.quic.reports import Reports
from a2al_trio.quic.spaces import PacketSpace
from a2al_trio.quic.stats import ConnectionStats, take_stats
from a2al_trio.quic.streams import StreamLimits, StreamTable
from a2al_trio.quic.timers import Timers
from a2al_trio.quic.tls import Level, TlsAlert
from a2al_trio.quic.transmit import Transmitter
from a2al_trio.quic.transport_params import PreferredAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from a2al_trio.machine import Entropy
    from a2al_trio.net.address import SocketAddress
    from a2al_trio.net.datagram import Transmit
    from a2al_trio.quic.config import QuicConfig
    from a2al_trio.quic.events import ConnectionEnded, ConnectionReady
    from a2al_trio.quic.frames import NewConnectionIdFrame
    from a2al_trio.quic.packet_builder import PacketBuffer
    from a2al_trio.quic.router import Router
    from a2al_trio.quic.tls import ClientTls, ServerTls, SessionTicket

__all__ = ["QuicConnectionCore"]


class QuicConnectionCore:
    """A connection; made by `QuicEndpointCore.connect`, or by the endpoint for an incoming one.

    Read-only attributes for users: `is_client`, `ready`, `closed`, `close_reason`, `close_error`,
    `peer_certificates`, `alpn`, `server_name`, `peer_address`, `local_host`, `version`, `stats`; `user_data`
    belongs to the driver.
    """

    def __init__(
        self,
        config: QuicConfig,
        *,
        is_client: bool,
        router: Router,
        buffer: PacketBuffer,
        entropy: Entropy,
        address: SocketAddress,
        local_host: str | None,
        peer_cid: bytes,
        original_cid: bytes,
        version: int,
        now: float,
    ) -> None:
        self.config = config
        self.is_client = is_client
        self.observer = config.observe(original_cid, is_client, address) if config.observe is not None else None
        self.buffer = buffer
        self.entropy = entropy
        self.version = version
        self.user_data: object = None
        self._router = router
        self.is_touched = False
        """Set by the router; see `Router.touch`."""
        self.reports = Reports(self, router)
        self.ready = False
        self.closed = False
        """Whether the connection is over; see `close_reason`."""
        self.handshake_confirmed = False
        self.handshake_spaces_gone = False
        """Whether Initial and Handshake packets are over for good."""
        self.source_cid, self.first_reset_token = router.make_cid(self)
        self.last_destination_cid = self.source_cid
        self.initial_token = b""
        self.one_rtt: OneRttKeys | None = None
        self.early_keys: PacketKeys | None = None
        self.ping_pending = False
        self.ping_awaited = False
        """Whether `PingAcknowledged` is to follow the pending PING."""
        self.handshake_done_pending = False
        self.tokens_pending: list[bytes] = []
        self.datagrams_sent = self.bytes_sent = self.bytes_received = 0
        self.spaces = (
            PacketSpace(Level.INITIAL, is_application=False, max_ack_delay=0.0),
            PacketSpace(Level.HANDSHAKE, is_application=False, max_ack_delay=0.0),
            PacketSpace(Level.ONE_RTT, is_application=True, max_ack_delay=config.max_ack_delay),
        )
        self.application = self.spaces[2]
        self.flow = ConnectionFlow(ReceiveWindow(config.connection_window, config.max_connection_window))
        self.streams = self._make_streams()
        self.datagrams = DatagramQueues(config.datagram_queue)
        self.local_cids = LocalConnectionIds(
            self.source_cid, make=lambda: router.make_cid(self), release=router.release_cid
        )
        self.preferred_address = self._make_preferred_address()
        self.peer_cids = PeerConnectionIds(peer_cid, limit=config.active_connection_id_limit)
        self.paths = PathSet(config, entropy, address, local_host)
        self.paths.current.peer_cid = peer_cid
        self.paths.current.validated = is_client
        self.recovery = LossRecovery(self.spaces, is_client=is_client, observer=self.observer)
        self.timers = Timers(self, now)
        self.ending = Ending(self)
        self.handshake = Handshake(self)
        self.handshake.original_cid = original_cid
        self.handshake_peer_cid = peer_cid
        self.establishment = Establishment(self)
        self.migration = Migration(self)
        self.intake = Intake(self)
        self.known_versions = (VERSION_1, VERSION_2)
        self.ack_delay_unit = 8 / 1_000_000
        self.key_updates = KeyUpdates(self)
        self.ack_frequency = AckFrequency(self)
        self.transmitter = Transmitter(self)

    # Commands

    def open_stream(self, *, unidirectional: bool = False) -> int | None:
        """Open a stream and return its ID; None while the peer's limit is reached (`StreamsAvailable` follows)."""
        if self.closed:
            self._check_alive()
        stream_id = self.streams.open(unidirectional=unidirectional)
        if self.streams.counts.is_scarce:
            acks = self.application.acks
            # What the peer waits for before it allows more may be that we acknowledge the end of others.
            if stream_id is None or acks.threshold > ELICITING_THRESHOLD:
                acks.ack_soon()
            if stream_id is None:
                self._router.touch(self)
        return stream_id

    def write(self, stream_id: int, data: bytes | bytearray | memoryview, fin: bool = False) -> int:
        """Hand over bytes to send; returns how many were accepted.

        If not all were, `fin` was not taken either, and `StreamWritable` follows. A large bytes object is kept, not
        copied. Raises `StreamStopped` when the peer stopped reading, `ConnectionLost`, and `LocalProtocolError` on a
        stream that was finished or reset.
        """
        if self.closed:
            self._check_alive()
        accepted = self.streams.writing.write(stream_id, data, fin=fin)
        if accepted > BULK and self.ack_frequency.is_quiet:
            self.ack_frequency.on_bulk()
        if not self.is_touched:
            self._router.touch(self)
        return accepted

    def read(self, stream_id: int, limit: int) -> bytes | None:
        """Take up to `limit` bytes: None if there are none now (`StreamReadable` follows), empty at the end.

        Taking bytes grants the peer new credit. Raises `StreamReset`, and `ConnectionLost` unless everything up to
        the end of the stream had arrived.
        """
        if self.closed:
            stream = self.streams.by_id.get(stream_id)
            if stream is not None and (stream.receive is None or not stream.receive.assembler.is_complete):
                self._check_alive()
        data = self.streams.reading.read(stream_id, limit)
        if self.flow.update_pending or self.streams.control or self.streams.counts.limits_pending:
            self._router.touch(self)
        return data

    def at_end(self, stream_id: int) -> bool:
        """Whether everything up to the end of the stream has arrived and was taken."""
        stream = self.streams.by_id.get(stream_id)
        half = None if stream is None else stream.receive
        return stream is None or (half is not None and half.is_read)

    def is_given_up(self, stream_id: int) -> bool:
        """Whether the peer has stopped reading the stream or abandoned sending on it."""
        stream = self.streams.by_id.get(stream_id)
        if stream is None:
            return False
        send, receive = stream.send, stream.receive
        return (send is not None and send.stopped_code is not None) or (
            receive is not None and receive.reset_code is not None
        )

    def peek(self, stream_id: int, limit: int) -> bytes:
        """Return up to `limit` bytes that `read` would give next, without taking them."""
        stream = self.streams.by_id.get(stream_id)
        if stream is None or stream.receive is None:
            return b""
        return stream.receive.assembler.peek(limit)

    def reset(self, stream_id: int, code: int) -> None:
        """Abandon sending on a stream; nothing happens if that direction is over."""
        check_code(code)
        self.streams.writing.reset(stream_id, code)
        self._router.touch(self)

    def stop(self, stream_id: int, code: int) -> None:
        """Abandon receiving on a stream; nothing happens if that direction is over."""
        check_code(code)
        self.streams.reading.stop(stream_id, code)
        self._router.touch(self)

    def forget(self, stream_id: int) -> None:
        """The application is done with the stream: what is unfinished is abandoned with code 0."""
        self.streams.forget(stream_id)
        if not self.is_touched:
            self._router.touch(self)

    def set_urgency(self, stream_id: int, urgency: int) -> None:
        """Order sending: streams of a lower number (0 to 7, 3 at first) go first, equal ones take turns."""
        self.streams.writing.set_urgency(stream_id, urgency)

    @property
    def max_datagram_size(self) -> int:
        """Largest DATAGRAM payload that can be sent now; 0 if the peer takes none (RFC 9221)."""
        path = self.paths.current
        if not self.datagrams.peer_limit:
            return 0
        return max(0, min(self.datagrams.peer_limit - 5, path.mtu.size - len(path.peer_cid) - 1 - 4 - 16 - 5))

    def send_datagram(self, data: bytes) -> bool:
        """Queue an unreliable datagram; False if the queue is full and it was dropped."""
        self._check_alive()
        if len(data) > self.max_datagram_size:
            raise LocalProtocolError(f"datagrams may have {self.max_datagram_size} bytes here, not {len(data)}")
        accepted = self.datagrams.send(data)
        self._router.touch(self)
        return accepted

    def receive_datagram(self) -> bytes | None:
        """Take a received datagram, None if there is none (`DatagramsReadable` follows)."""
        return self.datagrams.take()

    def ping(self) -> None:
        """Send a PING, unless what goes out next elicits an answer anyway; `PingAcknowledged` follows."""
        self.ping_pending = self.ping_awaited = True
        self._router.touch(self)

    def update_keys(self, now: float) -> bool:
        """Move on to the next keys if that is allowed now (RFC 9001 §6)."""
        self._router.catch_up()
        return self.key_updates.update(now)

    def migrate(self, address: SocketAddress | None = None, local_host: str | None = None) -> bool:
        """Move to another path once it is validated: ours changed, or the server is to be reached at `address`.

        False if the peer does not allow it or no connection ID is left for it (RFC 9000 §9.2).
        """
        self._check_alive()
        parameters = self.handshake.peer_parameters
        if (
            not self.handshake_confirmed
            or parameters is None
            or (parameters.disable_active_migration and address is None)
        ):
            return False
        if address is None:
            self.migration.on_local_change()
            moved = True
        else:
            moved = self.migration.move_to(address, local_host)
        self._router.touch(self)
        return moved

    def close(self, code: int, reason: str, now: float) -> None:
        """Close with an application error code; at once, and again without effect."""
        check_code(code)
        if not isinstance(reason, str):
            raise LocalProtocolError(f"the reason for closing is a text, not {reason!r}")
        self.ending.close(code, reason, by=CloseCause.LOCAL, is_application=True, now=now)

    def lose(self, reason: str, now: float) -> None:
        """End because the path is known to be gone, which only the layer below can tell."""
        self.ending.close(0, reason, by=CloseCause.PATH, is_application=True, now=now)

    def close_transport(self, code: int, reason: str, now: float) -> None:
        """Close with a transport error code of our own choice, such as CONNECTION_REFUSED."""
        self.ending.close(code, reason, by=CloseCause.LOCAL, is_application=False, now=now)

    def close_for(self, code: int, reason: str, now: float, error: BaseException | None = None) -> None:
        """Close because the peer broke a rule or the path failed."""
        self.ending.close(code, reason, by=CloseCause.LOCAL_TRANSPORT, is_application=False, now=now, error=error)

    # What users may ask

    @property
    def close_reason(self) -> tuple[CloseCause, int, str] | None:
        """Who ended the connection, with which code and words; None while it lives."""
        return self.ending.reason

    @property
    def close_error(self) -> BaseException | None:
        """The error that made us close, such as what `verify_peer` raised."""
        return self.ending.error

    @property
    def peer_certificates(self) -> tuple[bytes, ...]:
        """The peer's chain in DER, leaf first."""
        return self.handshake.outcome.peer_certificates

    @property
    def alpn(self) -> str | None:
        """The application protocol that was agreed on."""
        return self.handshake.outcome.alpn

    @property
    def server_name(self) -> str | None:
        """The name the client asked for."""
        return self.handshake.outcome.server_name

    @property
    def resumed(self) -> bool:
        """Whether a session ticket was used instead of certificates."""
        return self.handshake.outcome.resumed

    @property
    def early_data_accepted(self) -> bool:
        """Whether 0-RTT data counted."""
        return self.handshake.outcome.early_data_accepted

    @property
    def peer_address(self) -> SocketAddress:
        """Where the peer is reached at present."""
        return self.paths.current.peer_address

    @property
    def local_host(self) -> str | None:
        """Our address on the current path, if known."""
        return self.paths.current.local_host

    @property
    def stats(self) -> ConnectionStats:
        """Figures as of now."""
        self._router.catch_up()
        return take_stats(self)

    def _make_preferred_address(self) -> PreferredAddress | None:
        addresses = self.config.preferred_addresses
        if self.is_client or not addresses:
            return None
        cid, reset_token = self._router.make_cid(self)
        self.local_cids.adopt(cid, reset_token)
        return PreferredAddress(
            ipv4=next((address for address in addresses if not address.is_ipv6), None),
            ipv6=next((address for address in addresses if address.is_ipv6), None),
            connection_id=cid,
            stateless_reset_token=reset_token,
        )

    def _make_streams(self) -> StreamTable:
        config = self.config
        return StreamTable(
            is_client=self.is_client,
            limits=StreamLimits(
                bidirectional=config.max_bidirectional_streams,
                unidirectional=config.max_unidirectional_streams,
                window=config.stream_window,
                max_window=config.max_stream_window,
                send_buffer=config.send_buffer,
            ),
            flow=self.flow,
            observer=self.reports,
        )

    # Called by the endpoint

    def start(self, tls: ClientTls, *, server_name: str | None, ticket: SessionTicket | None, now: float) -> None:
        """Begin the handshake of a client."""
        self.handshake.install_initial_keys(self.handshake.original_cid, self.version)
        self.handshake.start_client(tls, server_name=server_name, ticket=ticket, now=now)
        self._router.touch(self)

    def start_server(self, tls: ServerTls, *, initial_cid: bytes, retry_cid: bytes | None, validated: bool) -> None:
        """Await the handshake of a client, whose Initial packets are keyed by `initial_cid`."""
        self.handshake.retry_cid = retry_cid
        self.handshake.install_initial_keys(initial_cid, self.version)
        self.handshake.start_server(tls)
        self.paths.current.validated = validated

    def on_violation(self, error: QuicTransportError | FrameDecodeError | TlsAlert, now: float) -> None:
        """The peer broke a rule: close with the code the error carries."""
        if isinstance(error, TlsAlert):
            self.close_for(error.quic_error_code, error.reason, now, error.__cause__ or error)
        else:
            self.close_for(error.code, error.reason, now, error)

    def transmits(self, now: float) -> Iterator[Transmit]:
        """Yield what may leave now."""
        if not self.closed:
            yield from self.transmitter.transmits(now)
        if self.ending.pending:
            self.ending.pending = False
            yield from self.transmitter.close_datagrams(now)

    def next_timeout(self) -> float:
        """When `handle_timeout` is due next; infinite if never."""
        return self.timers.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        try:
            self.timers.handle(now)
        except (QuicTransportError, FrameDecodeError, TlsAlert) as error:
            self.on_violation(error, now)

    # Called by the owners

    def put_off(self) -> None:
        """The intake keeps an ACK for later."""
        self._router.put_off(self)

    def on_ready(self, event: ConnectionReady, now: float) -> None:
        """The handshake is complete."""
        self.reports.on_ready(event)
        if not self.is_client and self.config.retry is not RetryPolicy.NEVER:
            self.tokens_pending.append(self._router.make_token(self, now))
        self._router.on_ready(self)

    def on_ended(self, event: ConnectionEnded, now: float) -> None:
        """The connection is over."""
        if self.observer is not None:
            self.observer.ended(now, event.by, event.code, event.reason)
        self.reports.on_ended(event)
        self._router.touch(self)

    def forget_now(self) -> None:
        """Nothing of the connection is needed any more."""
        self._router.forget(self)

    def on_new_connection_id(self, frame: NewConnectionIdFrame) -> None:
        """NEW_CONNECTION_ID arrived; it may retire the ID in use."""
        self.peer_cids.on_new(frame)
        path = self.paths.current
        if self.peer_cids.cid(path.peer_cid_sequence) is None:
            fresh = self.peer_cids.take_unused()
            if fresh is not None:
                path.peer_cid_sequence, path.peer_cid = fresh
        self.watch_reset_tokens()

    def retire_peer_cid(self, sequence: int) -> None:
        """Stop using one of the peer's connection IDs."""
        self.peer_cids.retire(sequence)
        self.watch_reset_tokens()

    def watch_reset_tokens(self) -> None:
        """Tell the endpoint which stateless resets are for this connection."""
        self._router.watch_reset_tokens(self, self.peer_cids.reset_tokens())

    def on_datagrams_sent(self, count: int, size: int, now: float) -> None:
        """Datagrams left."""
        self.datagrams_sent += count
        self.bytes_sent += size
        self.timers.on_sent(now)
        if self.application.next_number >= self.key_updates.phase_ends:
            self.key_updates.update(now)

    @property
    def probe_interval(self) -> float:
        """The present probe timeout (RFC 9002 §6.2.1)."""
        return self.paths.current.rtt.probe_interval + self.recovery.peer_max_ack_delay

    def _check_alive(self) -> None:
        if self.ending.reason is not None:
            raise ConnectionLost(*self.ending.reason) from self.ending.error
