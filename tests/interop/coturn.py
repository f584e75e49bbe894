"""coturn on loopback, as a STUN and TURN server to test against."""

from __future__ import annotations

import datetime
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD, SECRET = "lab", "secret", "north"
BINARY = shutil.which("turnserver")


@attrs.frozen
class Coturn:
    """A running server."""

    host: str
    port: int
    tls_port: int
    certificate: Path

    def url(self, transport: str = "udp", scheme: str = "turn") -> str:
        port = self.tls_port if scheme == "turns" else self.port
        return f"{scheme}:{'localhost' if scheme == 'turns' else self.host}:{port}?transport={transport}"


def free_port() -> int:
    """A port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "turn.crt", directory / "turn.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@asynccontextmanager
async def open_coturn(directory: Path, *options: str, hmac: bool = False) -> AsyncIterator[Coturn]:
    """Run the server; `hmac` makes it check credentials made from a shared secret."""
    certificate, key = make_certificate(directory)
    server = Coturn("127.0.0.1", free_port(), free_port(), certificate)
    login = ["--use-auth-secret", "--static-auth-secret", SECRET] if hmac else ["--user", f"{USER}:{PASSWORD}"]
    command = [
        str(BINARY), "-n", "--no-cli", "--lt-cred-mech", *login, "--realm", "lab", "--no-dtls",
        "--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1", "--allow-loopback-peers",
        "--listening-port", str(server.port), "--tls-listening-port", str(server.tls_port),
        "--cert", str(certificate), "--pkey", str(key), "--pidfile", str(directory / "turn.pid"),
        "--userdb", str(directory / "turn.db"), "--log-file", str(directory / "turn.log"), "--simple-log",
        "--min-port", "50000", "--max-port", "59999", *options,
    ]  # fmt: skip
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, capture_stdout=True, capture_stderr=True, check=False)
        await nursery.start(run)
        with trio.fail_after(20):
            while True:
                try:
                    await (await trio.open_tcp_stream(server.host, server.port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.02)
        yield server
        nursery.cancel_scope.cancel()
