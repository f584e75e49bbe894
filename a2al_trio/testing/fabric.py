"""The simulated internet below the sockets: hosts, NATs, segments and the packets in flight between them.

Pure: `Fabric` is told the time and moves packets hop by hop, each hop being one direction of a `Link`. The
public internet is one segment; every NAT has one of its own behind it, so NATs nest. What a host gets is
handed to `HostNode.deliver`.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator

from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.link import Link, LinkDirection, Packet
from a2al_trio.testing.nat import Nat, NatTable

__all__ = ["Fabric", "HostNode", "NatNode", "Node", "Segment", "Tap"]

Tap = Callable[[Packet, float], None]
"""Called with every packet that passes a place, and when."""

LOOPBACK_HOSTS = ("127.0.0.1", "::1")


class Node:
    """Anything with an uplink: a host or a NAT."""

    def __init__(self, fabric: Fabric, name: str, segment: Segment, *, link: Link) -> None:
        self.name = name
        self.fabric = fabric
        self.segment = segment
        self.hosts: tuple[str, ...] = ()
        self.up = LinkDirection(link, fabric.random)
        self.down = LinkDirection(link, fabric.random)

    @property
    def link(self) -> Link:
        """The uplink; assigning changes both directions at once, for packets sent from now on."""
        return self.up.link

    @link.setter
    def link(self, link: Link) -> None:
        self.up.link = self.down.link = link

    def arrive(self, packet: Packet, now: float) -> None:
        """Take a packet that came down the uplink."""
        raise NotImplementedError


class HostNode(Node):
    """An end host."""

    deliver: Tap = staticmethod(lambda packet, now: None)

    def send(self, packet: Packet, now: float) -> None:
        """Put a packet on the wire, or straight back if it is for this host."""
        for tap in self.fabric.taps:
            tap(packet, now)
        if packet.destination.host in self.hosts or packet.destination.host in LOOPBACK_HOSTS:
            self.fabric.schedule(now, self.arrive, packet)
            return
        for at, copy in self.up.carry(packet, now):
            self.fabric.schedule(at, self.segment.route, copy)

    def arrive(self, packet: Packet, now: float) -> None:
        """Hand the packet to the sockets."""
        self.deliver(packet, now)


class NatNode(Node):
    """A NAT router between its own segment and another."""

    def __init__(self, fabric: Fabric, name: str, segment: Segment, *, nat: Nat, link: Link) -> None:
        super().__init__(fabric, name, segment, link=link)
        number = len(fabric.nats)
        self.inside = Segment(fabric, _private_hosts(number), gateway=self)
        self.table: NatTable | None = None
        self._nat = nat

    def connect(self, outside_host: str) -> None:
        """Take its outside address."""
        self.hosts = (outside_host,)
        self.table = NatTable(self._nat, outside_host, self.fabric.random)

    def forget_mappings(self) -> None:
        """Lose all mappings, as a router that restarts."""
        assert self.table is not None
        self.table.forget()

    def arrive(self, packet: Packet, now: float) -> None:
        """Let a packet from the outside in, if something allows it."""
        assert self.table is not None
        inside = self.table.inbound(packet, now)
        if inside is None:
            self.fabric.filtered += 1
        else:
            self.inside.route(inside, now)

    def leave(self, packet: Packet, now: float) -> None:
        """Translate a packet from the inside and send it on."""
        assert self.table is not None
        outside = self.table.outbound(packet, now)
        if outside is None:
            self.fabric.filtered += 1
        elif outside.destination.host in self.hosts:
            if self._nat.hairpin:
                self.arrive(outside, now)
            else:
                self.fabric.filtered += 1
        else:
            for at, copy in self.up.carry(outside, now):
                self.fabric.schedule(at, self.segment.route, copy)


class Segment:
    """A network in which nodes reach each other directly: the public internet or the inside of a NAT."""

    def __init__(self, fabric: Fabric, free_hosts: Iterator[str], gateway: NatNode | None = None) -> None:
        self._fabric = fabric
        self._free_hosts = free_hosts
        self.gateway = gateway
        self._members: dict[str, Node] = {}

    def free_host(self) -> str:
        """An IPv4 address nobody here has."""
        return next(host for host in self._free_hosts if host not in self._members)

    def member(self, host: str) -> Node | None:
        """Who has an address."""
        return self._members.get(host)

    def add(self, node: Node, host: str) -> None:
        """Route an address to a node; IPv6 addresses are made known on the outside of NATs too."""
        if host in self._members:
            raise ValueError(f"{host} is taken by {self._members[host].name}: choose another address")
        self._members[host] = node
        if self.gateway is not None and ":" in host:
            self.gateway.segment.add(self.gateway, host)

    def remove(self, host: str) -> None:
        """Forget an address."""
        del self._members[host]
        if self.gateway is not None and ":" in host:
            self.gateway.segment.remove(host)

    def route(self, packet: Packet, now: float) -> None:
        """Send a packet down to the node that has the address, or out."""
        node = self._members.get(packet.destination.host)
        if node is not None:
            for at, copy in node.down.carry(packet, now):
                self._fabric.schedule(at, node.arrive, copy)
        elif self.gateway is not None:
            self.gateway.leave(packet, now)
        else:
            self._fabric.unroutable += 1


class Fabric:
    """All nodes and all packets in flight. `filtered` and `unroutable` count packets that ended in between."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.nats: dict[str, NatNode] = {}
        self.hosts: dict[str, HostNode] = {}
        self.internet = Segment(self, _public_hosts())
        self.taps: list[Tap] = []
        self.on_schedule: Callable[[float], None] = lambda at: None  # told when every new hop is due
        self.filtered = 0
        self.unroutable = 0
        self._hops: list[tuple[float, int, Tap, Packet]] = []  # a heap: when, tie-break, where to, what
        self._number = 0
        self._ipv6_number = 0

    def add_host(
        self, name: str, *, behind: NatNode | None, link: Link, addresses: tuple[str, ...], ipv6: bool
    ) -> HostNode:
        """A host; without `addresses` it gets an IPv4 one, and with `ipv6` an IPv6 one too."""
        if name in self.hosts:
            raise ValueError(f"there already is a host {name!r}: names are unique")
        segment = self.internet if behind is None else behind.inside
        host = HostNode(self, name, segment, link=link)
        self.set_addresses(host, addresses or self._free_addresses(segment, ipv6))
        self.hosts[name] = host
        return host

    def add_nat(self, name: str, nat: Nat, *, behind: NatNode | None, link: Link, address: str) -> NatNode:
        """A NAT on the internet or behind another."""
        if name in self.nats:
            raise ValueError(f"there already is a NAT {name!r}: names are unique")
        segment = self.internet if behind is None else behind.inside
        node = NatNode(self, name, segment, nat=nat, link=link)
        node.connect(address or segment.free_host())
        segment.add(node, node.hosts[0])
        self.nats[name] = node
        return node

    def set_addresses(self, host: HostNode, addresses: tuple[str, ...]) -> None:
        """Give a host other addresses."""
        addresses = tuple(SocketAddress.of(address, 0).host for address in addresses)
        for old in host.hosts:
            host.segment.remove(old)
        host.hosts = ()
        for address in addresses:
            host.segment.add(host, address)
        host.hosts = addresses

    def free_addresses(self, host: HostNode) -> tuple[str, ...]:
        """Unused addresses of the families the host has now."""
        return self._free_addresses(host.segment, any(":" in address for address in host.hosts))

    def _free_addresses(self, segment: Segment, ipv6: bool) -> tuple[str, ...]:
        addresses: tuple[str, ...] = (segment.free_host(),)
        if ipv6:
            self._ipv6_number += 1
            addresses += (f"2a01:{self._ipv6_number:x}::1",)
        return addresses

    def schedule(self, at: float, arrive: Tap, packet: Packet) -> None:
        """Let a packet reach its next hop."""
        self._number += 1
        heapq.heappush(self._hops, (at, self._number, arrive, packet))
        self.on_schedule(at)

    def next_timeout(self) -> float | None:
        """When the next packet reaches its next hop."""
        return self._hops[0][0] if self._hops else None

    def handle_timeout(self, now: float) -> None:
        """Move everything that is due at or before `now`."""
        while self._hops and self._hops[0][0] <= now:
            at, _, arrive, packet = heapq.heappop(self._hops)
            arrive(packet, at)


def _public_hosts() -> Iterator[str]:
    # Neighbours in different /16, as peers from all over the world are; outside every special-purpose range.
    for third in range(256):
        for second in range(256):
            for first in range(20, 100):
                yield f"{first}.{second}.{third}.1"


def _private_hosts(number: int) -> Iterator[str]:
    for last in range(2, 255):
        yield f"192.168.{number % 250}.{last}"
