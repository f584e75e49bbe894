"""`SimNet`: an internet in virtual time, for testing whole applications without a kernel socket.

Run it under `trio.testing.MockClock(autojump_threshold=0)`: hours pass in milliseconds, and the same seed
gives the same run.

    async with open_simnet(seed=1) as net:
        home = net.nat("home", Nat.port_restricted())
        alice = net.host("alice")
        bob = net.host("bob", behind=home, link=Link(latency=0.02, loss=0.01))
        a, b = alice.bind(4121), bob.bind(4121)
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.scopes import open_service_nursery
from a2al_trio.testing.fabric import Fabric, HostNode, NatNode, Tap
from a2al_trio.testing.link import Link, Packet
from a2al_trio.testing.nat import Nat
from a2al_trio.testing.pcap import PcapWriter
from a2al_trio.testing.socket import SimSocket
from a2al_trio.testing.stream import SimListener, SimStream, connect

__all__ = ["SimHost", "SimNat", "SimNet", "open_simnet"]

FIRST_EPHEMERAL_PORT = 49152
WILDCARDS = ("0.0.0.0", "::")


class SimHost:
    """A host of a `SimNet`: somewhere to bind sockets."""

    def __init__(self, net: SimNet, node: HostNode) -> None:
        self._net = net
        self._node = node
        self._sockets: dict[SocketAddress, SimSocket] = {}
        self._listeners: dict[int, SimListener] = {}
        self._next_port = FIRST_EPHEMERAL_PORT
        self.undelivered = 0
        node.deliver = self._deliver

    @property
    def name(self) -> str:
        """What the test called it."""
        return self._node.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own IP addresses, which behind a NAT are not those others see."""
        return self._node.hosts

    @property
    def link(self) -> Link:
        """Its cable. Assign another one at any time, such as `Link.broken()` for an outage."""
        return self._node.link

    @link.setter
    def link(self, link: Link) -> None:
        self._node.link = link

    def set_links(self, *, up: Link, down: Link) -> None:
        """Make the two directions differ, as seen from the host."""
        self._node.up.link, self._node.down.link = up, down

    def move(self, *addresses: str) -> None:
        """Change the host's addresses, by default to unused ones; its sockets stay open, as after roaming."""
        self._node.fabric.set_addresses(self._node, addresses or self._node.fabric.free_addresses(self._node))

    def bind(self, port: int = 0, *, host: str = "", send_buffer: int | None = None) -> SimSocket:
        """Bind a UDP socket to `port` (0: any free one) on all addresses, or on one.

        With `send_buffer`, the socket is full while more than so many bytes wait for a link with a `rate`.
        Raises OSError as a real bind does.
        """
        wildcard = "::" if any(":" in address for address in self.addresses) else "0.0.0.0"
        local = SocketAddress.of(host or wildcard, port or self._free_port())
        if local.host not in (*self.addresses, *WILDCARDS, "127.0.0.1", "::1"):
            raise OSError(f"{self.name} has no address {local.host}")
        if any(local.port == taken.port and self._overlap(local, taken) for taken in self._sockets):
            raise OSError(f"{local} is in use on {self.name}")
        sock = SimSocket(self._node, local, send_buffer=send_buffer, unbind=self._unbind)
        self._sockets[local] = sock
        return sock

    def listen(self, port: int = 0) -> SimListener:
        """Listen for TCP connections on all addresses; serve them with `trio.serve_listeners`.

        Raises OSError if the port is taken.
        """
        port = port or self._free_port()
        if port in self._listeners:
            raise OSError(f"TCP port {port} is in use on {self.name}")
        local = SocketAddress(self.addresses[0], port)
        listener = self._listeners[port] = SimListener(local, lambda: self._listeners.pop(port, None))
        return listener

    async def connect(self, destination: SocketAddress) -> SimStream:
        """Open a TCP connection; raises OSError (refused, timed out) as a real connect does."""

        def listener(target: HostNode) -> SimListener | None:
            return self._net.hosts[target.name]._listeners.get(destination.port)

        return await connect(self._node, destination, self._free_port(), listener)

    def _free_port(self) -> int:
        taken = {address.port for address in self._sockets}
        while True:
            port = self._next_port
            self._next_port = FIRST_EPHEMERAL_PORT if port == 65535 else port + 1
            if port not in taken:
                return port

    @staticmethod
    def _overlap(one: SocketAddress, other: SocketAddress) -> bool:
        return one.host == other.host or one.host in WILDCARDS or other.host in WILDCARDS

    def _unbind(self, sock: SimSocket) -> None:
        del self._sockets[sock.local_address]

    def _deliver(self, packet: Packet, now: float) -> None:
        to = packet.destination
        candidates = (to, *(SocketAddress(host, to.port) for host in WILDCARDS))
        sock = next((self._sockets[local] for local in candidates if local in self._sockets), None)
        if sock is None:
            self.undelivered += 1
        else:
            sock.deliver(packet)


class SimNat:
    """A NAT router of a `SimNet`."""

    def __init__(self, node: NatNode) -> None:
        self.node = node

    @property
    def address(self) -> str:
        """The address its hosts are seen with."""
        return self.node.hosts[0]

    @property
    def link(self) -> Link:
        """Its uplink; assign another one at any time."""
        return self.node.link

    @link.setter
    def link(self, link: Link) -> None:
        self.node.link = link

    def forget_mappings(self) -> None:
        """Lose all mappings, as a router that restarts."""
        self.node.forget_mappings()


class SimNet:
    """A simulated internet; made by `open_simnet`."""

    def __init__(self, seed: int, default_link: Link) -> None:
        self.seed = seed
        self.default_link = default_link
        self._fabric = Fabric(random.Random(seed))
        self._timer = trio.CancelScope()
        self._fabric.on_schedule = self._schedule
        self.hosts: dict[str, SimHost] = {}
        self.nats: dict[str, SimNat] = {}

    def host(
        self,
        name: str,
        *,
        address: str | tuple[str, ...] = (),
        behind: SimNat | None = None,
        link: Link | None = None,
        ipv6: bool = False,
    ) -> SimHost:
        """Add a host, with an unused IPv4 address (and with `ipv6` an IPv6 one) or those given."""
        node = self._fabric.add_host(
            name,
            behind=behind.node if behind else None,
            link=link or self.default_link,
            addresses=(address,) if isinstance(address, str) else address,
            ipv6=ipv6,
        )
        host = self.hosts[name] = SimHost(self, node)
        return host

    def nat(
        self,
        name: str,
        nat: Nat,
        *,
        address: str = "",
        behind: SimNat | None = None,
        link: Link | None = None,
    ) -> SimNat:
        """Add a NAT on the internet, or behind another one. Its uplink has no latency unless given a link."""
        node = self._fabric.add_nat(
            name, nat, behind=behind.node if behind else None, link=link or Link(latency=0.0), address=address
        )
        made = self.nats[name] = SimNat(node)
        return made

    def socket_pair(self, link: Link | None = None) -> tuple[SimSocket, SimSocket]:
        """Two bound sockets on two new hosts."""
        number = len(self.hosts)
        one, two = (self.host(f"host{number + i}", link=link) for i in (1, 2))
        return one.bind(), two.bind()

    def tap(self, function: Tap) -> None:
        """Call `function(packet, now)` with every packet a host sends."""
        self._fabric.taps.append(function)

    def pcap(self, path: str | Path) -> AbstractContextManager[object]:
        """Write every packet the hosts send to a capture file, while the returned context is open."""
        writer = PcapWriter(path)
        self.tap(writer.write)
        return writer

    def _schedule(self, at: float) -> None:
        self._timer.deadline = min(self._timer.deadline, at)

    async def _run(self) -> None:
        while True:
            due = self._fabric.next_timeout()
            with trio.CancelScope(deadline=float("inf") if due is None else due) as self._timer:
                await trio.sleep_forever()
            self._fabric.handle_timeout(trio.current_time())


@asynccontextmanager
async def open_simnet(seed: int = 0, *, link: Link | None = None) -> AsyncIterator[SimNet]:
    """Open a simulated internet. `link` is what hosts are connected by unless they are given their own."""
    net = SimNet(seed, link or Link())
    async with open_service_nursery("simulated net") as nursery:
        nursery.start_soon(net._run)
        yield net
