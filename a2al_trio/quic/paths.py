"""Network paths: validation, anti-amplification, congestion state, and their changes (RFC 9000 §8, §9)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from a2al_trio.machine import Entropy
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.config import QuicConfig
from a2al_trio.quic.congestion import CongestionController
from a2al_trio.quic.ecn import EcnValidator
from a2al_trio.quic.mtu import MtuSearch
from a2al_trio.quic.pacing import Pacer
from a2al_trio.quic.recovery import RttEstimator
from a2al_trio.quic.reordering import Patience

__all__ = ["MAX_PATHS", "MIN_DATAGRAM", "Path", "PathSet"]

MAX_PATHS = 4
"""Paths kept at once: the current one and those being validated."""

MAX_RESPONSES = 4
"""PATH_RESPONSEs owed at once on one path."""

MIN_DATAGRAM = 64
"""Less room than this is not worth a datagram."""

AMPLIFICATION_FACTOR = 3


@attrs.define(eq=False)
class Path:
    """One pair of addresses with what we know of the network between them."""

    peer_address: SocketAddress
    local_host: str | None
    congestion: CongestionController
    pacer: Pacer
    mtu: MtuSearch
    validated: bool = False
    peer_cid: bytes = b""
    """Destination connection ID of packets on this path."""
    peer_cid_sequence: int = 0
    rtt: RttEstimator = attrs.field(factory=RttEstimator)
    patience: Patience = attrs.field(factory=Patience)
    ecn: EcnValidator = attrs.field(factory=EcnValidator)
    in_flight: int = 0
    first_sample_at: float = float("inf")
    bytes_received: int = 0
    bytes_sent: int = 0
    challenge: bytes | None = None
    challenge_pending: bool = False
    challenge_deadline: float = float("inf")
    _challenge_tries: int = 0
    _challenge_ends_at: float = 0.0
    responses: list[bytes] = attrs.field(factory=list)
    """PATH_RESPONSE data owed on this path."""

    @property
    def amplification_credit(self) -> int:
        """Bytes we may still send before the address is validated (RFC 9000 §8.1)."""
        if self.validated:
            return 1 << 62
        return AMPLIFICATION_FACTOR * self.bytes_received - self.bytes_sent

    @property
    def is_amplification_limited(self) -> bool:
        """Whether not even one more small datagram may leave."""
        return not self.validated and self.amplification_credit < MIN_DATAGRAM

    def start_challenge(self, entropy: Entropy) -> None:
        """Begin to validate the peer's address (RFC 9000 §8.2)."""
        self.challenge = entropy(8)
        self.challenge_pending = True
        self._challenge_tries = 0

    def on_challenge_sent(self, now: float) -> None:
        """A PATH_CHALLENGE left; it is repeated ever more slowly for a few seconds (RFC 9000 §8.2.4)."""
        self.challenge_pending = False
        self._challenge_tries += 1
        self.challenge_deadline = now + self.rtt.probe_interval * (1 << self._challenge_tries - 1)
        if self._challenge_tries == 1:
            self._challenge_ends_at = now + 3 * max(self.rtt.probe_interval, 1.0)

    def on_challenge_timeout(self, now: float) -> bool:
        """Ask again, or return False when the path has failed."""
        self.challenge_deadline = float("inf")
        if now < self._challenge_ends_at:
            self.challenge_pending = True
            return True
        self.challenge = None
        return False

    def on_challenge(self, data: bytes) -> None:
        """Take PATH_CHALLENGE data; a peer that asks faster than we answer gets fewer answers."""
        self.responses.append(data)
        del self.responses[:-MAX_RESPONSES]

    def on_response(self, data: bytes) -> bool:
        """Take PATH_RESPONSE data; return whether it validated the path."""
        if self.challenge is None or data != self.challenge:
            return False
        self.challenge = None
        self.challenge_pending = False
        self.challenge_deadline = float("inf")
        self.validated = True
        return True


class PathSet:
    """The current path, and others that were tried or are being validated."""

    def __init__(self, config: QuicConfig, entropy: Entropy, address: SocketAddress, local_host: str | None) -> None:
        self._config = config
        self._entropy = entropy
        self._peer_max_payload = config.max_probed_udp_payload_size
        self.current = self._make(address, local_host)
        self.others: list[Path] = []
        self.target: Path | None = None
        """A path we mean to use once it is validated."""
        self.changes = 0

    def _make(self, address: SocketAddress, local_host: str | None) -> Path:
        config = self._config
        size = config.initial_udp_payload_size
        mtu = MtuSearch(size, max(size, config.max_probed_udp_payload_size), enabled=False)
        mtu.set_peer_limit(self._peer_max_payload)
        path = Path(address, local_host, config.congestion(mtu.size), Pacer(mtu.size), mtu)
        if not config.ecn:
            path.ecn.turn_off()
        return path

    def __iter__(self) -> Iterator[Path]:
        yield self.current
        yield from self.others

    @property
    def need_probing(self) -> bool:
        """Whether a challenge or a response waits on some path."""
        current = self.current
        if current.challenge_pending or current.responses:
            return True
        return any(path.challenge_pending or path.responses for path in self.others) if self.others else False

    @property
    def next_challenge_deadline(self) -> float:
        """When a challenge must be repeated or a path given up."""
        return min(path.challenge_deadline for path in self)

    def set_peer_limit(self, max_udp_payload_size: int) -> None:
        """Take the peer's max_udp_payload_size and allow the MTU search."""
        self._peer_max_payload = max_udp_payload_size
        self.current.mtu.set_peer_limit(max_udp_payload_size)
        self.sync_datagram_size(self.current)

    def enable_mtu_search(self) -> None:
        """The handshake is over: larger datagrams may be tried."""
        self.current.mtu.enabled = self._config.path_mtu_discovery

    @staticmethod
    def sync_datagram_size(path: Path) -> None:
        """Tell congestion control and pacing the path's datagram size."""
        if path.pacer.max_datagram_size != path.mtu.size:
            path.pacer.max_datagram_size = path.mtu.size
            path.congestion.set_max_datagram_size(path.mtu.size)

    def find(self, address: SocketAddress) -> Path | None:
        """Return the path to that peer address, if it is known."""
        if self.current.peer_address == address:
            return self.current
        return next((path for path in self.others if path.peer_address == address), None)

    def open(self, address: SocketAddress, local_host: str | None) -> Path:
        """Begin a path to a new address; the oldest unvalidated one makes room."""
        path = self._make(address, local_host)
        if len(self.others) >= MAX_PATHS - 1:
            victim = next((other for other in self.others if not other.validated), self.others[0])
            self.others.remove(victim)
        self.others.append(path)
        return path

    def migrate(self, path: Path, *, ours_moved: bool = False) -> None:
        """Make `path` the current one.

        A peer that only changed its port keeps its congestion state (RFC 9000 §9.4), unless it is us who moved.
        """
        before = self.current
        if path is before:
            return
        self.others.remove(path)
        self.others.append(before)
        if path.peer_address.host == before.peer_address.host and not path.rtt.has_sample and not ours_moved:
            path.rtt = before.rtt
            path.congestion = before.congestion
            path.pacer = before.pacer
            path.mtu = before.mtu
        else:
            path.mtu.enabled = before.mtu.enabled
        self.current = path
        self.changes += 1

    def revert(self) -> bool:
        """Validation of the current path failed: go back to the last validated one, if there is one."""
        back = next((path for path in reversed(self.others) if path.validated), None)
        if back is None:
            return False
        failed = self.current
        self.others.remove(back)
        self.current = back
        self.changes += 1
        if failed in self.others:
            self.others.remove(failed)
        return True
