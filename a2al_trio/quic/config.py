"""What a user of QUIC may set: transport limits and policies (RFC 9000 §18.2 and others), and TLS settings.

The defaults are good for bulk data and many small streams alike. Every limit bounds what a peer can make us
hold; windows start small and grow only while the application keeps reading.
"""

from __future__ import annotations

import enum

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.congestion import CongestionFactory
from a2al_trio.quic.congestion_cubic import Cubic
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.qlog import ObserverFactory
from a2al_trio.quic.tls.config import ClientTls, Credentials, PeerRejected, ServerTls

__all__ = ["ClientTls", "Credentials", "PeerRejected", "QuicConfig", "RetryPolicy", "ServerTls"]

KIB = 1024
MIB = 1024 * 1024

_MOST = (1 << 62) - 1
_LONGEST = 1_000_000_000
# What settings may be; times in seconds.
_RANGES: dict[str, tuple[int, int]] = {
    "idle_timeout": (0, _LONGEST),
    "handshake_timeout": (0, _LONGEST),
    "handshake_idle_timeout": (0, _LONGEST),
    "connection_window": (1, _MOST),
    "stream_window": (1, _MOST),
    "max_connection_window": (1, _MOST),
    "max_stream_window": (1, _MOST),
    "max_bidirectional_streams": (0, 1 << 60),
    "max_unidirectional_streams": (0, 1 << 60),
    "send_buffer": (1, _MOST),
    "max_datagram_frame_size": (0, _MOST),
    "datagram_queue": (1, _MOST),
    "max_udp_payload_size": (1200, 65_527),
    "initial_udp_payload_size": (1200, 65_507),
    "max_probed_udp_payload_size": (1200, 65_507),
    "connection_id_length": (4, 20),
    "active_connection_id_limit": (2, _MOST),
    "max_ack_delay": (0, 16),
    "retry_threshold": (0, _MOST),
    "max_incoming_handshakes": (0, _MOST),
    "max_connections": (0, _MOST),
}


class RetryPolicy(enum.Enum):
    """When a server answers a first Initial packet with Retry to validate the address (RFC 9000 §8.1.2)."""

    NEVER = "never"
    UNDER_LOAD = "under load"
    ALWAYS = "always"


@attrs.frozen(kw_only=True)
class QuicConfig:
    """Transport settings of an endpoint, for all its connections. Times are in seconds, sizes in bytes."""

    versions: tuple[int, ...] = (VERSION_1, VERSION_2)
    """Versions we speak, preferred first; a client starts with the first (RFC 9368)."""

    idle_timeout: float = 30.0
    """Silence after which a connection is given up; the smaller of both sides' values counts; 0 is never."""

    handshake_timeout: float = 20.0
    """A handshake that takes longer is given up."""

    handshake_idle_timeout: float = 10.0
    """Silence after which an unfinished handshake is given up."""

    keep_alive: float | None = None
    """Interval of PINGs on an otherwise silent connection; None sends none."""

    silence_limit: float | None = None
    """How long a peer may leave something unanswered, without a word, before it counts as gone; None: `idle_timeout`.

    Meanwhile it is asked eight times, so that shorter outages are survived. Together with `keep_alive` this also ends
    connections on which nobody sends anything.
    """

    connection_window: int = 1 * MIB
    """Flow control credit per connection at its start (initial_max_data)."""

    stream_window: int = 512 * KIB
    """Flow control credit per stream at its start (initial_max_stream_data_*)."""

    max_connection_window: int = 24 * MIB
    """Auto-tuning never grows the connection window above this."""

    max_stream_window: int = 16 * MIB
    """Auto-tuning never grows a stream window above this."""

    max_bidirectional_streams: int = 100
    """Streams the peer may have open at once towards us, both directions."""

    max_unidirectional_streams: int = 100
    """Streams the peer may have open at once towards us, one direction."""

    send_buffer: int = 512 * KIB
    """Bytes one stream accepts from the application that have not been sent yet."""

    max_datagram_frame_size: int = 0
    """Largest DATAGRAM frame we accept (RFC 9221); 0 switches datagrams off."""

    datagram_queue: int = 256
    """Datagrams kept in each direction; more are dropped, the oldest first on receipt."""

    max_udp_payload_size: int = 65_527
    """Largest UDP payload we accept."""

    initial_udp_payload_size: int = 1_252
    """Size of datagrams before the path is known to carry more; at least 1200."""

    path_mtu_discovery: bool = True
    """Search for larger datagrams (RFC 8899), up to `max_probed_udp_payload_size`."""

    max_probed_udp_payload_size: int = 65_507
    """Upper end of the path MTU search."""

    active_migration: bool = True
    """Whether the peer may move to another address on purpose; NAT rebinding is always followed."""

    connection_id_length: int = 8
    """Length of the connection IDs we hand out, 4 to 20."""

    active_connection_id_limit: int = 4
    """How many connection IDs of the peer we are willing to keep, at least 2."""

    max_ack_delay: float = 0.025
    """The longest we hold back an acknowledgement, unless the peer asks for more."""

    ack_frequency: bool = True
    """Ask for fewer acknowledgements of large windows, and obey a peer that asks (draft-ietf-quic-ack-frequency)."""

    congestion: CongestionFactory = Cubic
    """Makes the congestion controller of a path."""

    ecn: bool = True
    """Mark packets ECT(0) while the path proves to carry the marks (RFC 9000 §13.4)."""

    grease: bool = True
    """Send reserved transport parameters and versions now and then; never touches the QUIC bit."""

    retry: RetryPolicy = RetryPolicy.UNDER_LOAD
    """When a server validates addresses before it keeps state."""

    retry_threshold: int = 100
    """Unfinished incoming handshakes from which on `UNDER_LOAD` asks for address validation."""

    max_incoming_handshakes: int = 1000
    """Unfinished incoming handshakes from which on new ones are refused."""

    max_connections: int = 10_000
    """Connections of the endpoint from which on incoming ones are refused."""

    preferred_addresses: tuple[SocketAddress, ...] = ()
    """Server: where clients should move after the handshake, at most one IPv4 and one IPv6 address (RFC 9000 §9.6)."""

    observe: ObserverFactory | None = None
    """Makes a watcher for each connection, such as `QlogWriter`; None watches nothing and costs nothing."""

    def __attrs_post_init__(self) -> None:
        if not self.versions or any(version not in (VERSION_1, VERSION_2) for version in self.versions):
            raise ConfigurationError("QuicConfig.versions: name at least one of VERSION_1 and VERSION_2")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigurationError(f"QuicConfig.{name} must be in {least}..{most}, not {value!r}")
        for name in ("connection_window", "stream_window"):
            if getattr(self, f"max_{name}") < getattr(self, name):
                raise ConfigurationError(f"QuicConfig.max_{name} must not be below {name}")
        if self.keep_alive is not None and self.keep_alive <= 0:
            raise ConfigurationError("QuicConfig.keep_alive must be positive, or None to send no PINGs")
        if self.silence_limit is not None and not self.silence_limit >= 1:
            raise ConfigurationError("QuicConfig.silence_limit must be at least 1 second, or None for no such limit")
