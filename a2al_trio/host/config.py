"""What a user of the host may set (spec 04 §6.3)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from a2al_trio.dht import DhtConfig
from a2al_trio.errors import ConfigurationError
from a2al_trio.ice import TurnServer
from a2al_trio.ice.servers import parse_server
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicConfig
from a2al_trio.signaling.urls import hub_authority

__all__ = ["ALPN", "CONNECT_STAGGER", "HTTP3", "ICE_STAGGER", "HostConfig", "parse_endpoint"]

ALPN = "a2al-quic-1"
"""What agent connections negotiate by ALPN (spec 04 §3.1)."""
HTTP3 = "h3"
"""What connections for HTTP/3 negotiate (RFC 9114 §3.1)."""
CONNECT_STAGGER = 0.25
"""Seconds between direct dials (spec 04 §10.3)."""
ICE_STAGGER = 2.0
"""Seconds of head start that direct dials have over ICE (spec 04 §10.4)."""

KIB = 1024
MAX_TTL = 7 * 86400
LEAST = {
    "min_observed_peers": 0,
    "endpoint_ttl": 1,
    "clock_tolerance": 0,
    "max_connections": 1,
    "max_connections_per_caller": 1,
    "max_streams_per_caller": 0,
    "max_rate_per_caller": 0,
}
"""The smallest value of each number."""
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""One part of a host name."""


def agent_quic_config() -> QuicConfig:
    """The QUIC settings of agent connections (spec 04 §3.1, §17 D13).

    The reference keeps no connection alive by itself and forgets one after 90 s of silence, and NAT bindings
    live shorter than that: both ends of ours send a PING after 15 s. One that is not answered for 20 s ends the
    connection, so that whoever waits on it is told within 35 s that the peer is gone, and within 20 s of asking it
    something. Shorter would cost what a mobile phone goes through in a tunnel, or a router that restarts.
    """
    return QuicConfig(
        idle_timeout=90.0,
        keep_alive=15.0,
        silence_limit=20.0,
        connection_window=1024 * KIB,
        stream_window=512 * KIB,
        max_bidirectional_streams=100,
        max_unidirectional_streams=10,
        initial_udp_payload_size=1280,
        ack_frequency=False,  # a transport parameter more than spec 04 §3.1 knows
    )


def parse_endpoint(text: str, *, setting: str) -> SocketAddress | None:
    """Read a listen address: `IP:port`, `:port` for all addresses, or empty for all and any free port (None).

    Raises ConfigurationError naming `setting`.
    """
    if not text:
        return None
    try:
        if text.startswith(":"):
            return SocketAddress.parse(f"[::]{text}")
        return SocketAddress.parse(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{setting}: {error}; write IP:port such as 0.0.0.0:4121 or [::]:4121, or :4121 for all addresses"
        ) from None


def _check_host(host: str, *, setting: str) -> None:
    """Raise ConfigurationError unless `host` is an IP address, a host name (RFC 1123 §2.1) or empty."""
    labels = host.removesuffix(".").split(".")
    # A name whose last label is a number would be an IPv4 address gone wrong.
    if not host or (all(map(LABEL.fullmatch, labels)) and not labels[-1].isdecimal() and len(host) <= 254):
        return
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ConfigurationError(
            f"{setting}: {host!r} is no host; write an IP address or a name, without scheme and port"
        ) from None


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ConfigurationError(f"a list of texts belongs where {values!r} stands; write [{values!r}]")
    return tuple(values)


def _check_number(value: object, least: int, *, setting: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigurationError(f"{setting} must be a whole number, not {value!r}")
    if value < least:
        raise ConfigurationError(f"{setting} must be at least {least}, not {value}")


def _check_url(read: Callable[[str], object], url: str, *, setting: str) -> None:
    try:
        read(url)
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}") from None


def _check_seed(seed: str) -> None:
    host, _, port = seed.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"bootstrap: {seed!r} is not host:port; write a name or an IP, such as 192.0.2.1:4121")


@attrs.frozen(kw_only=True)
class HostConfig:
    """Settings of a host. Nothing here contacts anybody that is not named."""

    listen: str = ""
    """Where DHT and QUIC share a UDP socket: `IP:port`, `:port` for all addresses, or empty for any free port."""

    quic_listen: str = ""
    """A separate address for QUIC; empty shares the one above (spec 04 §2.1)."""

    bootstrap: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    """Nodes to join through, `host:port`; empty starts a network of its own."""

    data_dir: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """Where known peers and published records survive a restart; None keeps nothing."""

    fallback_host: str = ""
    """A host name or IP to publish as an endpoint, together with our QUIC port, whatever else is known."""

    min_observed_peers: int = 3
    """How many peers must agree on our public address before we publish it (spec 05 §3); 0 means 3."""

    signal_urls: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    """Signaling hubs to be called at, `ws://host:port` or `wss://`, in order of preference.

    Empty uses those on the bootstrap nodes (spec 06 §6). Records name the hubs that answer.
    """

    stun_servers: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    """STUN servers, such as `stun:host:3478`, which tell our public address; empty asks the hosts of the hubs."""

    turn_servers: tuple[TurnServer, ...] = ()
    """Relays for peers who cannot meet directly; both sides may bring their own.

    Where no UDP passes at all the whole host runs over the first that gives a relay by TCP or TLS.
    """

    relay_only: bool = False
    """Meet over relays only, so that peers learn none of our addresses; direct dials are still made."""

    ip_echo_urls: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    """Web pages that show the visitor's IP address and nothing else, asked when no STUN server knows ours."""

    port_mapping: bool = False
    """Have the router forward our port, by PCP, NAT-PMP or UPnP."""

    endpoint_ttl: int = 3600
    """Seconds a published endpoint record stays valid."""

    clock_tolerance: int = 60
    """Seconds a peer's clock may be ahead of ours, or behind at the end of a delegation (spec 08 §3)."""

    max_connections: int = 1024
    """Incoming agent connections at a time; more are closed with code 1.

    One network, an IPv4 /24 or an IPv6 /56, may have three quarters of them: AIDs are free to make.
    """

    max_connections_per_caller: int = 32
    """Incoming connections of one AID at a time; more are closed with code 1."""

    max_streams_per_caller: int = 1000
    """Streams of one AID at a time, on all its connections together; more wait. 0 sets no bound."""

    max_rate_per_caller: int = 0
    """Bytes a second that may pass on the streams of one AID, both directions together; 0 sets no bound.

    A caller that was quiet for a second may have twice as much in the next one. What exceeds that waits.
    """

    keylog: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """A file to append TLS secrets to (`SSLKEYLOGFILE`), with which Wireshark reads our connections."""

    qlog_dir: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """A directory for qlog traces, one per connection (`QLOGDIR`)."""

    quic: QuicConfig = attrs.field(factory=agent_quic_config)
    dht: DhtConfig = attrs.field(factory=DhtConfig)

    def __attrs_post_init__(self) -> None:
        parse_endpoint(self.listen, setting="listen")
        parse_endpoint(self.quic_listen, setting="quic_listen")
        _check_host(self.fallback_host.strip(), setting="fallback_host")
        if self.listen and self.listen == self.quic_listen:
            raise ConfigurationError("quic_listen: this is the address of listen; leave it empty to share the socket")
        for name, least in LEAST.items():
            _check_number(getattr(self, name), least, setting=name)
        if self.endpoint_ttl > MAX_TTL:
            raise ConfigurationError(f"endpoint_ttl must be 1 to {MAX_TTL} seconds; 3600 is usual")
        for url in self.ip_echo_urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigurationError(f"ip_echo_urls: {url!r} is not a URL; write https://host/path")
        for url in self.signal_urls:
            _check_url(hub_authority, url, setting="signal_urls")
        for url in self.stun_servers:
            _check_url(parse_server, url, setting="stun_servers")
        for seed in self.bootstrap:
            _check_seed(seed)
