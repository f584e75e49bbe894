"""Asking named servers for our address: STUN through a simulated NAT, web services on loopback."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from a2al_trio.nat.external import ExternalAddress, fetch_public_host, resolve_server
from a2al_trio.nat.http import HttpFailed, request
from a2al_trio.nat.sense import NatSense
from a2al_trio.nat.stun_client import StunAnswer, open_stun_client
from a2al_trio.net.address import SocketAddress
from a2al_trio.testing import Nat, open_simnet
from a2al_trio.wire import NatType
from tests.nat.stun_server import StunServer

ENTROPY = random.Random(3).randbytes


@pytest.mark.parametrize(
    ("nat", "nat_type"), [(Nat.port_restricted(), NatType.RESTRICTED), (Nat.symmetric(), NatType.SYMMETRIC)]
)
async def test_servers_named_tell_address_and_kind_of_nat(
    nat: Nat, nat_type: NatType, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        servers = [StunServer(net.host(f"stun{number}").bind(3478)) for number in range(2)]
        for server in servers:
            nursery.start_soon(server.run)
        names = [f"{host.addresses[0]}:3478" for name, host in net.hosts.items()] + ["198.51.100.250:1", "[::1]:1"]
        us = net.host("us", behind=net.nat("home", nat))
        sense = NatSense()

        def heard(server: SocketAddress, answer: StunAnswer) -> None:
            sense.observe_server(server, answer.mapped, trio.current_time())

        async with open_stun_client(us.bind(4121), entropy=ENTROPY) as stun:
            external = ExternalAddress(stun, names, (), heard)
            async with trio.open_nursery() as both:
                both.start_soon(external.refresh)
                both.start_soon(external.refresh)
            now = trio.current_time()
            assert now <= 3.1, "a dead server costs its own time only"
            assert sense.nat_type(now) is nat_type
            if nat_type is not NatType.SYMMETRIC:
                assert sense.trusted(now) == SocketAddress(net.nats["home"].address, 4121)
            assert [server.asked for server in servers] == [1, 1]
            await external.refresh()
            assert [server.asked for server in servers] == [1, 1], "answers are good for five minutes"
            external.invalidate()
            await external.refresh()
            assert [server.asked for server in servers] == [2, 2]
        nursery.cancel_scope.cancel()


async def test_failure_is_remembered_for_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    async with open_simnet() as net, trio.open_nursery() as nursery:
        server = StunServer(net.host("stun").bind(3478), deaf=3)
        nursery.start_soon(server.run)
        async with open_stun_client(net.host("us").bind(), entropy=ENTROPY) as stun:
            external = ExternalAddress(stun, [f"{net.hosts['stun'].addresses[0]}:3478"], (), lambda *_: None)
            await external.refresh()
            await trio.sleep(50)
            await external.refresh()
            assert server.asked == 3
            await trio.sleep(11)
            await external.refresh()
            assert server.asked == 4
        nursery.cancel_scope.cancel()


async def _reply(raw: bytes, tls: ssl.SSLContext | None, transport: trio.SocketStream) -> None:
    stream: trio.abc.Stream = transport
    if tls is not None:
        stream = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            received += bytes(await stream.receive_some())
        if raw == b"never":
            await trio.sleep_forever()
        await stream.send_all(raw)
        await stream.aclose()
    except trio.BrokenResourceError:
        return


@asynccontextmanager
async def open_web(raw: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request with the same bytes."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, functools.partial(_reply, raw, tls), [listener])
        scheme = "http" if tls is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.socket.getsockname()[1]}/ip?format=text"
        nursery.cancel_scope.cancel()


def ok(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (ok(b" 203.0.113.9\n"), "203.0.113.9"),
        (b"HTTP/1.0 200 OK\r\n\r\n203.0.113.9", "203.0.113.9"),
        (ok(b"2001:db8::9"), "2001:db8::9"),
        (ok(b"192.168.1.9"), None),
        (ok(b"<html>"), None),
        (ok(b"203.0.113.9", "503 Busy"), None),
        (ok(b" " * 65), None),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"9" * 1_000_000, None),
        (b"HTTP/1.1 200 OK\r\nX: " + b"9" * 1_000_000, None),
        (b"SSH-2.0-x\r\n", None),
        (b"", None),
        (ok(b"\xff\xfe"), None),
    ],
)
async def test_web_services_tell_the_host(raw: bytes, host: str | None, no_leaks: None) -> None:
    async with open_web(raw) as url:
        with trio.fail_after(3):
            assert await fetch_public_host([url]) == host


async def test_the_quickest_service_wins(no_leaks: None) -> None:
    async with open_web(b"never") as silent, open_web(ok(b"203.0.113.9")) as quick:
        with trio.fail_after(3):
            assert await fetch_public_host([silent, "http://127.0.0.1:1/", quick]) == "203.0.113.9"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///", "http://[/", "http://127.0.0.1:0x/", "127.0.0.1", ""])
async def test_urls_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(HttpFailed):
        await request(url, max_body=10)


def certificate_files(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_file, key_file


async def test_tls_servers_must_prove_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    certificate_file, key_file = certificate_files(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate_file, key_file)
    async with open_web(ok(b"203.0.113.9"), context) as url:
        with trio.fail_after(3):
            with pytest.raises(HttpFailed, match="verify"):
                await request(url, max_body=64)
            trusting = ssl.create_default_context(cafile=certificate_file)
            monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
            assert (await request(url, max_body=64)).body == b"203.0.113.9"


async def test_server_names_resolve_to_one_address_per_family() -> None:
    assert await resolve_server("127.0.0.1:3478", ipv6=True) == [SocketAddress("127.0.0.1", 3478)]
    assert await resolve_server("[::1]:3478", ipv6=True) == [SocketAddress("::1", 3478)]
    assert await resolve_server("[::1]:3478", ipv6=False) == []
    assert await resolve_server("stun:127.0.0.1", ipv6=True) == [SocketAddress("127.0.0.1", 3478)]
    for wrong in ("a" * 70 + ":1", "127.0.0.1:x", "[::1", "stun:127.0.0.1:99999"):
        assert await resolve_server(wrong, ipv6=True) == []
