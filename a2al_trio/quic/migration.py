"""Following a peer that changes its address, and moving ourselves (RFC 9000 §9)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from a2al_trio.net.address import SocketAddress

if TYPE_CHECKING:
    from a2al_trio.quic.connection import QuicConnectionCore
    from a2al_trio.quic.paths import Path

__all__ = ["Migration", "is_credible_move"]


def is_credible_move(before: SocketAddress, after: SocketAddress) -> bool:
    """Whether a peer at `before` may say that it is at `after` from now on.

    Nobody from elsewhere shall make us send to services of our own machine, which trust what comes from there
    (RFC 9000 §21.5.6), or to addresses that are not one host's.
    """
    old, new = ipaddress.ip_address(before.host), ipaddress.ip_address(after.host)
    return not (new.is_multicast or new.is_unspecified or after.port == 0 or (new.is_loopback and not old.is_loopback))


class Migration:
    """Path changes of one connection."""

    def __init__(self, connection: QuicConnectionCore) -> None:
        self._connection = connection

    def path_for(self, address: SocketAddress, local_host: str | None) -> Path | None:
        """Return the path a datagram came on; None if packets from there are to be dropped."""
        connection = self._connection
        path = connection.paths.find(address)
        if path is not None:
            if local_host is not None:
                path.local_host = local_host
            return path
        # Before confirmation nobody moves; and clients do not follow servers (RFC 9000 §9).
        if connection.is_client or not connection.handshake_confirmed:
            return None
        if not is_credible_move(connection.peer_address, address):
            return None
        path = connection.paths.open(address, local_host)
        self._use_cid_of(connection.paths.current, path)
        return path

    def _use_cid_of(self, source: Path, target: Path) -> None:
        target.peer_cid, target.peer_cid_sequence = source.peer_cid, source.peer_cid_sequence

    def on_packet(self, path: Path, destination_cid: bytes, *, moved: bool) -> None:
        """A genuine packet arrived on a path that is not the current one; `moved` if it tells that the peer moved."""
        connection = self._connection
        paths = connection.paths
        if not path.validated and path.challenge is None:
            path.start_challenge(connection.entropy)
        if not moved or connection.is_client:
            return
        before = paths.current
        if destination_cid != connection.last_destination_cid and not connection.peer_cids.is_empty:
            # The peer took a new ID with the new address, so we do too, lest the two be linked (RFC 9000 §9.5).
            fresh = connection.peer_cids.take_unused()
            if fresh is not None:
                path.peer_cid_sequence, path.peer_cid = fresh
        connection.last_destination_cid = destination_cid
        paths.migrate(path)
        if before.validated:
            # An attacker may have sent the packet on: the old path is asked as well (RFC 9000 §9.3.3).
            before.start_challenge(connection.entropy)
        connection.reports.on_path_changed(path.peer_address)

    def on_response(self, data: bytes) -> None:
        """PATH_RESPONSE arrived, on whatever path (RFC 9000 §8.2.3)."""
        connection = self._connection
        for path in list(connection.paths):
            if path.on_response(data):
                if path is connection.paths.target:
                    connection.paths.target = None
                    self._switch(path)
                elif path is connection.paths.current:
                    self._retire_unused_cids()

    def _switch(self, path: Path) -> None:
        connection = self._connection
        connection.paths.migrate(path)
        connection.reports.on_path_changed(path.peer_address)
        self._retire_unused_cids()

    def _retire_unused_cids(self) -> None:
        """Give back the IDs of paths that are no longer of use, and forget those paths."""
        connection = self._connection
        paths, current = connection.paths, connection.paths.current
        for path in list(paths.others):
            if path.challenge is None and path is not paths.target:
                paths.others.remove(path)
                if path.peer_cid_sequence != current.peer_cid_sequence:
                    connection.retire_peer_cid(path.peer_cid_sequence)

    def on_challenge_timeout(self, now: float) -> None:
        """Repeat challenges, and give up paths that never answered (RFC 9000 §8.2.4)."""
        connection = self._connection
        paths = connection.paths
        for path in list(paths):
            if path.challenge_deadline > now or path.on_challenge_timeout(now):
                continue
            if path is paths.current:
                if paths.revert():
                    connection.reports.on_path_changed(paths.current.peer_address)
                elif not path.validated:
                    # Nowhere to go back to: keep asking, the idle timeout sees to the end.
                    path.start_challenge(connection.entropy)
                continue
            if path is paths.target:
                paths.target = None
            if path in paths.others:
                paths.others.remove(path)

    def move_to(self, address: SocketAddress, local_host: str | None) -> bool:
        """Probe a path of our own choice and use it once it answers; False if we have no connection ID for it."""
        connection = self._connection
        path = connection.paths.open(address, local_host)
        fresh = connection.peer_cids.take_unused()
        if fresh is None and not connection.peer_cids.is_empty:
            connection.paths.others.remove(path)
            return False
        if fresh is not None:
            path.peer_cid_sequence, path.peer_cid = fresh
        path.validated = False
        path.bytes_received = 1 << 40  # we chose the address, so the anti-amplification limit is not for it
        path.start_challenge(connection.entropy)
        connection.paths.target = path
        return True

    def on_local_change(self) -> None:
        """Our own address changed: take a fresh connection ID, and find out whether the peer still hears us.

        What was measured on the old path says nothing of the new one, which begins as any path does, and packets sent
        before do not count on it (RFC 9000 §9.4).
        """
        connection = self._connection
        paths, before = connection.paths, connection.paths.current
        path = paths.open(before.peer_address, None)
        path.validated = before.validated  # the peer has not moved
        fresh = connection.peer_cids.take_unused()
        if fresh is not None:
            connection.retire_peer_cid(before.peer_cid_sequence)
            path.peer_cid_sequence, path.peer_cid = fresh
        else:
            self._use_cid_of(before, path)
        paths.migrate(path, ours_moved=True)
        paths.others.remove(before)  # nobody is there any more
        path.start_challenge(connection.entropy)
