"""Small routers for tests, on loopback sockets: one that speaks PCP or NAT-PMP or both, and a UPnP IGD."""

from __future__ import annotations

import functools
import ipaddress
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import h11
import trio
import trio.testing

from a2al_trio.nat.igd import SEARCH_TARGETS, decode_soap_reply
from a2al_trio.nat.upnp import SSDP_ADDRESS
from a2al_trio.net.address import SocketAddress

__all__ = ["EXTERNAL", "FakeIgd", "PcpGateway", "open_igd", "open_pcp_gateway"]

EXTERNAL = "203.0.113.7"
LOOPBACK = "127.0.0.1"
UNBOUND = SocketAddress(LOOPBACK, 0)


@attrs.define
class PcpGateway:
    """`mappings` are external ports by internal ones; `result` refuses everything, `forge` alters every answer."""

    address: SocketAddress = UNBOUND
    pcp: bool = True
    nat_pmp: bool = True
    external: str = EXTERNAL
    result: int = 0
    deaf: int = 0
    lifetime: int = 3600
    forge: Callable[[bytes], bytes] = bytes
    mappings: dict[int, int] = attrs.field(factory=dict)
    requests: int = 0

    def answer(self, request: bytes) -> bytes | None:
        self.requests += 1
        if self.requests <= self.deaf:
            return None
        if request[0] == 2:
            return self._pcp(request) if self.pcp else struct.pack(">BBHI", 0, 0x80 | request[1], 1, 99)
        return self._pmp(request) if self.nat_pmp else struct.pack(">BBHI", 2, 0x80, 1, 0) + bytes(16)

    def _external_port(self, internal: int, wanted: int, lifetime: int) -> int:
        if not lifetime:
            self.mappings.pop(internal, None)
            return 0
        return self.mappings.setdefault(internal, wanted)

    def _pmp(self, request: bytes) -> bytes:
        if request[1] == 0:
            return struct.pack(">BBHI4s", 0, 0x80, self.result, 99, ipaddress.IPv4Address(self.external).packed)
        internal, wanted, lifetime = struct.unpack(">HHI", request[4:12])
        port = self._external_port(internal, wanted, lifetime)
        lifetime = min(lifetime, self.lifetime)
        return struct.pack(">BBHIHHI", 0, 0x81, self.result, 99, internal, port, lifetime)

    def _pcp(self, request: bytes) -> bytes:
        lifetime = int.from_bytes(request[4:8], "big")
        internal, wanted = struct.unpack(">HH", request[40:44])
        assert len(request) == 60
        assert request[8:24] == bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(LOOPBACK).packed
        if self.result:
            return struct.pack(">BBxBII12x", 2, 0x81, self.result, 30, 99) + request[24:]
        port = self._external_port(internal, wanted, lifetime)
        mapped = bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(self.external).packed
        header = struct.pack(">BBxBII12x", 2, 0x81, 0, min(lifetime, self.lifetime), 99)
        return header + request[24:42] + port.to_bytes(2, "big") + mapped

    async def run(self, sock: trio.socket.SocketType) -> None:
        while True:
            data, source = await sock.recvfrom(2048)
            reply = self.answer(data)
            if reply is not None:
                await sock.sendto(self.forge(reply), source)


@asynccontextmanager
async def open_pcp_gateway(gateway: PcpGateway) -> AsyncIterator[PcpGateway]:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((LOOPBACK, 0))
        gateway.address = SocketAddress(*sock.getsockname())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gateway.run, sock)
            yield gateway
            nursery.cancel_scope.cancel()


@attrs.define
class FakeIgd:
    """A router at `host` with one service. `taken` ports are those of others, `faults` the errors that actions give."""

    service_type: str = SEARCH_TARGETS[1]
    host: str = LOOPBACK
    external: str = EXTERNAL
    permanent_only: bool = False
    taken: set[int] = attrs.field(factory=set)
    faults: dict[str, int] = attrs.field(factory=dict)
    location: str = ""
    description: bytes | None = None
    raw_reply: bytes | None = None
    ssdp: SocketAddress = UNBOUND
    mappings: dict[int, dict[str, str]] = attrs.field(factory=dict)
    actions: list[str] = attrs.field(factory=list)

    def search_answer(self, request: bytes) -> bytes | None:
        assert b'MAN: "ssdp:discover"\r\n' in request
        if f"ST: {self.service_type}\r\n".encode() not in request:
            return None
        lines = ("HTTP/1.1 200 OK", "EXT:", f"ST: {self.service_type}", f"LOCATION: {self.location}", "", "")
        return "\r\n".join(lines).encode()

    def get(self) -> tuple[int, bytes]:
        if self.description is not None:
            return 200, self.description
        document = f"""<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/l3f</controlURL></service></serviceList>
<deviceList><device><serviceList><service><serviceType>{self.service_type}</serviceType>
<controlURL>/control</controlURL></service></serviceList></device></deviceList>
</device></root>"""
        return 200, document.encode()

    def post(self, action: str, body: bytes) -> tuple[int, bytes]:
        self.actions.append(action)
        if self.raw_reply is not None:
            return 200, self.raw_reply
        arguments = decode_soap_reply(body)
        fault = self.faults.get(action) or self._do(action, arguments)
        if fault:
            return 500, _envelope(
                "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError>"
                f"<errorCode>{fault}</errorCode><errorDescription>No</errorDescription></UPnPError></detail></s:Fault>"
            )
        result = f"<NewExternalIPAddress>{self.external}</NewExternalIPAddress>" if action.startswith("Get") else ""
        return 200, _envelope(f'<u:{action}Response xmlns:u="{self.service_type}">{result}</u:{action}Response>')

    def _do(self, action: str, arguments: dict[str, str]) -> int:
        port = int(arguments.get("NewExternalPort", "0"))
        if action == "AddPortMapping":
            if self.permanent_only and arguments["NewLeaseDuration"] != "0":
                return 725
            if port in self.taken:
                return 718
            self.mappings[port] = arguments
        elif action == "DeletePortMapping":
            return 0 if self.mappings.pop(port, None) else 714
        return 0


def _envelope(inner: str) -> bytes:
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
        f"<s:Body>{inner}</s:Body></s:Envelope>"
    ).encode()


async def _serve_http(igd: FakeIgd, stream: trio.SocketStream) -> None:
    connection = h11.Connection(h11.SERVER)
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some())
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            break
    assert head is not None
    if head.method == b"GET":
        status, document = igd.get()
    else:
        action = dict(head.headers)[b"soapaction"].decode().strip('"')
        status, document = igd.post(action.partition("#")[2], body)
    headers = [("Content-Type", "text/xml"), ("Connection", "close")]
    await stream.send_all(connection.send(h11.Response(status_code=status, headers=headers)) or b"")
    await stream.send_all(connection.send(h11.Data(data=document)) or b"")
    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
    await stream.aclose()


async def _answer_searches(igd: FakeIgd, sock: trio.socket.SocketType) -> None:
    while True:
        data, source = await sock.recvfrom(2048)
        answer = igd.search_answer(data)
        if answer is not None:
            await sock.sendto(answer, source)


def _join_ssdp_group(host: str) -> trio.socket.SocketType:
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    group = trio.socket.inet_aton(SSDP_ADDRESS.host) + trio.socket.inet_aton(host)
    sock.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_ADD_MEMBERSHIP, group)
    return sock


async def _hear_searches(igd: FakeIgd, host: str, sock: trio.socket.SocketType) -> None:
    """Answer searches of the multicast group, from the router's own address."""
    with _join_ssdp_group(host) as group:
        await group.bind((SSDP_ADDRESS.host, SSDP_ADDRESS.port))
        while True:
            data, source = await group.recvfrom(2048)
            answer = igd.search_answer(data)
            if answer is not None:
                await sock.sendto(answer, source)


@asynccontextmanager
async def open_igd(igd: FakeIgd, *, multicast: bool = False) -> AsyncIterator[FakeIgd]:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((igd.host, 0))
        igd.ssdp = SocketAddress(*sock.getsockname())
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=igd.host)
            port = listener.socket.getsockname()[1]
            igd.location = igd.location or f"http://{igd.host}:{port}/description.xml"
            nursery.start_soon(trio.serve_listeners, functools.partial(_serve_http, igd), [listener])
            nursery.start_soon(_answer_searches, igd, sock)
            if multicast:
                nursery.start_soon(_hear_searches, igd, igd.host, sock)
            await trio.testing.wait_all_tasks_blocked()
            yield igd
            nursery.cancel_scope.cancel()
