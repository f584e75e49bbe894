"""A TURN client for one allocation (RFC 8656). Pure; the same over UDP, TCP and TLS.

It allocates a relayed address, keeps it, permits peers, and carries datagrams: first as Send indications, over a
channel once a peer is in use. Datagrams for a peer that is not permitted yet wait, a few of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import attrs

from a2al_trio.ice.channel_data import (
    FIRST_CHANNEL,
    LAST_CHANNEL,
    decode_channel_data,
    encode_channel_data,
    is_channel_data,
)
from a2al_trio.ice.errors import StunDecodeError
from a2al_trio.ice.stun import (
    Attribute,
    Attributes,
    StunClass,
    StunMessage,
    StunMethod,
    decode_stun,
    encode_stun,
    encode_xor_address,
)
from a2al_trio.ice.turn_auth import LongTermAuth
from a2al_trio.machine import Entropy
from a2al_trio.net.address import SocketAddress

__all__ = ["MAX_RELAYED_SIZE", "Allocated", "AllocationFailed", "RelayedDatagram", "TurnClient", "TurnEvent"]

_UDP: Final = bytes([17, 0, 0, 0])
_IPV6: Final = bytes([2, 0, 0, 0])
_FIRST_TIMEOUT: Final = 0.2
_LONGEST_TIMEOUT: Final = 1.6
_SENDS: Final = 7
_ANSWER_LIMIT: Final = 7.8
_CHALLENGES: Final = 3
_PERMISSION_REFRESH: Final = 120.0
_CHANNEL_REFRESH: Final = 300.0
_CHANNEL_LIFE: Final = 600.0
_FORGET_PEER: Final = 300.0
_MAX_PEERS: Final = 512
_QUEUED_PER_PEER: Final = 16
_CHANNEL_AFTER: Final = 3

MAX_RELAYED_SIZE: Final = 1452
"""Bytes of the largest datagram relayed. Larger ones are lost, as on any path with an MTU of 1500: servers differ in
what they take, and some end the connection over what they do not (spec 06 §14)."""


@attrs.frozen
class Allocated:
    """The server gave us `relayed`; it sees us as `mapped`."""

    relayed: SocketAddress
    mapped: SocketAddress | None


@attrs.frozen
class RelayedDatagram:
    """A datagram from a peer. `data` is a view of the received message."""

    peer: SocketAddress
    data: memoryview = attrs.field(repr=False)


@attrs.frozen
class AllocationFailed:
    """There is no allocation, or none any more. `redirect` names another server to ask (RFC 8489 §10)."""

    reason: str
    redirect: SocketAddress | None = None


TurnEvent = Allocated | RelayedDatagram | AllocationFailed


class _Standing(Enum):
    NONE = auto()
    ASKED = auto()
    GRANTED = auto()
    REFUSED = auto()


@attrs.define(eq=False)
class _Permission:
    """What the server lets in from one peer IP."""

    standing: _Standing = _Standing.NONE
    refresh_at: float = 0.0


@attrs.define(eq=False)
class _Peer:
    """One peer address: its channel, how often and when it was sent to, and what waits for the permission."""

    address: SocketAddress
    channel: int = 0
    channel_standing: _Standing = _Standing.NONE
    channel_due_at: float = 0.0
    channel_ends_at: float = 0.0
    sent: int = 0
    used_at: float = 0.0
    queue: deque[bytes] = attrs.Factory(lambda: deque(maxlen=_QUEUED_PER_PEER))


@attrs.define(eq=False)
class _Transaction:
    method: StunMethod
    attributes: Attributes
    transaction_id: bytes
    data: bytes
    expires_at: float
    next_at: float
    timeout: float
    sends: int = 1
    challenges: int = 0
    subject: _Permission | _Peer | None = None


class TurnClient:
    """The client. Every method that takes `now` may produce messages and events; drain both after each call."""

    def __init__(
        self, username: str, password: str, *, entropy: Entropy, reliable: bool = False, ipv6: bool = False
    ) -> None:
        self._auth = LongTermAuth(username, password)
        self._entropy = entropy
        self._reliable = reliable
        self._ipv6 = ipv6
        self._transactions: dict[bytes, _Transaction] = {}
        self._permissions: dict[str, _Permission] = {}
        self._peers: dict[SocketAddress, _Peer] = {}
        self._channels: dict[int, _Peer] = {}
        self._next_channel = FIRST_CHANNEL
        self._out: deque[bytes] = deque()
        self._events: deque[TurnEvent] = deque()
        self._refresh_at: float | None = None
        self._lifetime = 600.0
        self.relayed: SocketAddress | None = None
        self.ended = False

    # --- verbs ------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Ask for the allocation."""
        attributes: list[tuple[int, bytes]] = [(Attribute.REQUESTED_TRANSPORT, _UDP)]
        if self._ipv6:
            attributes.append((Attribute.REQUESTED_ADDRESS_FAMILY, _IPV6))
        self._request(StunMethod.ALLOCATE, attributes, now)

    def close(self, now: float) -> None:
        """Give the allocation back; nothing waits for the answer."""
        if self.relayed is not None and not self.ended:
            self._request(StunMethod.REFRESH, [(Attribute.LIFETIME, bytes(4))], now)
        self._end()

    def messages(self) -> Iterator[bytes]:
        """Take what is to be sent to the server."""
        while self._out:
            yield self._out.popleft()

    def next_event(self) -> TurnEvent | None:
        """Take the next event."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do."""
        if self.ended:
            return None
        times = [min(each.next_at, each.expires_at) for each in self._transactions.values()]
        if self._refresh_at is not None:
            times.append(self._refresh_at)
        times += [each.refresh_at for each in self._permissions.values() if each.standing is _Standing.GRANTED]
        times += [each.channel_due_at for each in self._channels.values() if each.channel_standing is _Standing.GRANTED]
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        """Repeat, give up and refresh what is due."""
        for each in list(self._transactions.values()):
            if now >= each.expires_at:
                del self._transactions[each.transaction_id]
                self._failed(each, "the TURN server does not answer")
            elif now >= each.next_at:
                each.sends += 1
                each.timeout = min(2 * each.timeout, _LONGEST_TIMEOUT)
                each.next_at = now + each.timeout if each.sends < _SENDS else each.expires_at
                self._out.append(each.data)
        if self.ended:
            return
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh_at = None
            self._request(StunMethod.REFRESH, [(Attribute.LIFETIME, int(self._lifetime).to_bytes(4, "big"))], now)
        self._refresh_peers(now)

    def _refresh_peers(self, now: float) -> None:
        for peer in list(self._peers.values()):
            idle = now - peer.used_at >= _FORGET_PEER
            if idle and peer.channel_standing in (_Standing.NONE, _Standing.REFUSED):
                del self._peers[peer.address]
            elif peer.channel_standing is _Standing.GRANTED and now >= peer.channel_due_at:
                if now >= peer.channel_ends_at:
                    del self._peers[peer.address], self._channels[peer.channel]
                elif idle:
                    peer.channel_due_at = peer.channel_ends_at  # until then the peer may still be heard through it
                else:
                    self._bind(peer, now)
        in_use = {peer.address.host for peer in self._peers.values()}
        for host, permission in list(self._permissions.items()):
            if permission.standing is _Standing.GRANTED and now >= permission.refresh_at:
                if host in in_use:
                    self._permit(host, permission, now)
                else:
                    del self._permissions[host]

    def send(self, peer: SocketAddress, data: bytes | memoryview, now: float) -> None:
        """Send a datagram to a peer; it is dropped if the server will not have it."""
        if self.relayed is None or self.ended or peer.is_ipv6 != self.relayed.is_ipv6 or len(data) > MAX_RELAYED_SIZE:
            return
        entry = self._peers.get(peer)
        if entry is None:
            if len(self._peers) >= _MAX_PEERS:
                return
            entry = self._peers[peer] = _Peer(peer)
        entry.used_at = now
        entry.sent += 1
        permission = self._permissions.setdefault(peer.host, _Permission())
        if permission.standing is _Standing.NONE:
            self._permit(peer.host, permission, now)
        if permission.standing is not _Standing.GRANTED and not permission.refresh_at:
            entry.queue.append(bytes(data))
            return
        if entry.channel_ends_at > now:
            self._out.append(encode_channel_data(entry.channel, data, pad=self._reliable))
            if entry.channel_standing is _Standing.GRANTED and entry.channel_ends_at - now < _CHANNEL_REFRESH:
                self._bind(entry, now)
            return
        self._indicate(peer, data)
        if entry.sent >= _CHANNEL_AFTER and entry.channel_standing is _Standing.NONE:
            self._bind(entry, now)

    def _indicate(self, peer: SocketAddress, data: bytes | memoryview) -> None:
        transaction_id = self._entropy(12)
        attributes = [
            (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id)),
            (Attribute.DATA, bytes(data)),
        ]
        self._out.append(encode_stun(StunClass.INDICATION, StunMethod.SEND, transaction_id, attributes))

    # --- requests ---------------------------------------------------------------------------------------------

    def _permit(self, host: str, permission: _Permission, now: float) -> None:
        permission.standing = _Standing.ASKED
        self._request(StunMethod.CREATE_PERMISSION, [], now, permission, SocketAddress(host, 0))

    def _bind(self, peer: _Peer, now: float) -> None:
        if not peer.channel:
            if self._next_channel > LAST_CHANNEL:
                return  # all numbers are spent; Send indications do as well
            peer.channel = self._next_channel
            self._next_channel += 1
            self._channels[peer.channel] = peer
        peer.channel_standing = _Standing.ASKED
        number = (Attribute.CHANNEL_NUMBER, peer.channel.to_bytes(2, "big") + b"\0\0")
        self._request(StunMethod.CHANNEL_BIND, [number], now, peer, peer.address)

    def _request(
        self,
        method: StunMethod,
        attributes: Attributes,
        now: float,
        subject: _Permission | _Peer | None = None,
        peer: SocketAddress | None = None,
        challenges: int = 0,
    ) -> None:
        transaction_id = self._entropy(12)
        if peer is not None:
            attributes = [*attributes, (Attribute.XOR_PEER_ADDRESS, encode_xor_address(peer, transaction_id))]
        data = self._auth.encode_request(method, transaction_id, attributes)
        expires_at = now + _ANSWER_LIMIT
        self._transactions[transaction_id] = _Transaction(
            method,
            attributes,
            transaction_id,
            data,
            expires_at,
            expires_at if self._reliable else now + _FIRST_TIMEOUT,
            _FIRST_TIMEOUT,
            subject=subject,
            challenges=challenges,
        )
        self._out.append(data)

    def _repeat(self, old: _Transaction, now: float) -> None:
        """Ask again with the new nonce; the peer's address is XOR-ed with the transaction id and must be made anew."""
        peer: SocketAddress | None = None
        attributes = list(old.attributes)
        if attributes and attributes[-1][0] == Attribute.XOR_PEER_ADDRESS:
            message = StunMessage(StunClass.REQUEST, old.method, old.transaction_id, attributes[-1:])
            peer = message.address(Attribute.XOR_PEER_ADDRESS)
            attributes.pop()
        self._request(old.method, attributes, now, old.subject, peer, old.challenges + 1)

    # --- what the server says ---------------------------------------------------------------------------------

    def receive(self, data: bytes | memoryview, now: float) -> None:
        """Take one message from the server; what is malformed or unexpected is dropped."""
        if self.ended:
            return
        try:
            if is_channel_data(data):
                channel, payload = decode_channel_data(data)
                peer = self._channels.get(channel)
                if peer is not None:
                    self._events.append(RelayedDatagram(peer.address, payload))
                return
            message = decode_stun(data)
        except StunDecodeError:
            return
        if message.message_class is StunClass.INDICATION:
            self._receive_indication(message)
            return
        transaction = self._transactions.get(message.transaction_id)
        if transaction is None or transaction.method != message.method:
            return
        if message.message_class is StunClass.ERROR:
            del self._transactions[message.transaction_id]
            self._refused(transaction, message, now)
        elif message.message_class is StunClass.SUCCESS and self._auth.ready and self._auth.authenticates(message):
            del self._transactions[message.transaction_id]
            self._succeeded(transaction, message, now)

    def _receive_indication(self, message: StunMessage) -> None:
        peer, payload = message.address(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        if message.method == StunMethod.DATA and peer is not None and payload is not None:
            self._events.append(RelayedDatagram(peer, memoryview(payload)))

    def _refused(self, transaction: _Transaction, answer: StunMessage, now: float) -> None:
        code, reason = answer.error or (500, "malformed error")
        challenged = code == 438 or (code == 401 and not self._auth.ready)
        if challenged and transaction.challenges < _CHALLENGES and self._auth.take_challenge(answer):
            self._repeat(transaction, now)
            return
        redirect = _alternate_server(answer) if code == 300 else None
        hint = "; check the user name and password" if code == 401 else ""
        self._failed(transaction, f"the TURN server refused: {code} {reason}{hint}", redirect)

    def _succeeded(self, transaction: _Transaction, answer: StunMessage, now: float) -> None:
        match transaction.method:
            case StunMethod.ALLOCATE:
                relayed = answer.address(Attribute.XOR_RELAYED_ADDRESS)
                if relayed is None:
                    self._failed(transaction, "the TURN server sent no relayed address")
                    return
                self.relayed = relayed
                self._keep(answer, now)
                self._events.append(Allocated(relayed, answer.mapped_address))
            case StunMethod.REFRESH:
                self._keep(answer, now)
            case _:
                self._granted(transaction.subject, now)

    def _keep(self, answer: StunMessage, now: float) -> None:
        self._lifetime = float(answer.number(Attribute.LIFETIME) or 600)
        self._refresh_at = now + max(self._lifetime / 2, 1.0)

    def _granted(self, subject: _Permission | _Peer | None, now: float) -> None:
        if isinstance(subject, _Peer):
            subject.channel_standing = _Standing.GRANTED
            subject.channel_due_at = now + _CHANNEL_REFRESH
            subject.channel_ends_at = now + _CHANNEL_LIFE
        elif isinstance(subject, _Permission):
            subject.standing = _Standing.GRANTED
            subject.refresh_at = now + _PERMISSION_REFRESH
            for peer in self._peers.values():
                if self._permissions.get(peer.address.host) is subject:
                    while peer.queue:
                        self._indicate(peer.address, peer.queue.popleft())

    def _failed(self, transaction: _Transaction, reason: str, redirect: SocketAddress | None = None) -> None:
        subject = transaction.subject
        if isinstance(subject, _Peer):
            # Send indications do as well, for as long as the peer's entry lives.
            subject.channel_standing, subject.channel_ends_at = _Standing.REFUSED, 0.0
            self._channels.pop(subject.channel, None)
        elif isinstance(subject, _Permission):
            subject.standing, subject.refresh_at = _Standing.NONE, 0.0
            for host in [host for host, each in self._permissions.items() if each is subject]:
                del self._permissions[host]
                for peer in self._peers.values():
                    if peer.address.host == host:
                        peer.queue.clear()
        else:
            self._events.append(AllocationFailed(reason, redirect))
            self._end()

    def _end(self) -> None:
        self.ended = True
        self._transactions.clear()
        self._peers.clear()
        self._channels.clear()
        self._permissions.clear()


def _alternate_server(answer: StunMessage) -> SocketAddress | None:
    """ALTERNATE-SERVER is not XOR-ed (RFC 8489 §14.15)."""
    value = answer.get(Attribute.ALTERNATE_SERVER)
    if value is None:
        return None
    plain = StunMessage(answer.message_class, answer.method, answer.transaction_id, [(Attribute.MAPPED_ADDRESS, value)])
    return plain.mapped_address
