"""Two ends of a TLS handshake in memory, and certificates for them."""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from a2al_trio.quic.packet_crypto import VERSION_1
from a2al_trio.quic.tls import (
    ClientTls,
    Credentials,
    Engine,
    KeysReady,
    Level,
    ServerTls,
    SessionTicket,
    TlsClient,
    TlsEvent,
    TlsServer,
)
from a2al_trio.quic.tls.config import PrivateKey

ALPN = ("test",)
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
FAR_AWAY = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


def drbg(seed: str) -> Callable[[int], bytes]:
    """Entropy that is the same for the same seed."""
    state = hashlib.shake_256(seed.encode())
    counter = 0

    def draw(size: int) -> bytes:
        nonlocal counter
        counter += 1
        fork = state.copy()
        fork.update(counter.to_bytes(8, "big"))
        return fork.digest(size)

    return draw


def self_signed(key: PrivateKey | Ed448PrivateKey, name: str = "peer") -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, LONG_AGO, FAR_AWAY)
    algorithm = None if isinstance(key, Ed25519PrivateKey | Ed448PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


@functools.cache
def credentials(kind: str = "ed25519", name: str = "peer") -> Credentials:
    keys: dict[str, Callable[[], PrivateKey]] = {
        "ed25519": Ed25519PrivateKey.generate,
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }
    key = keys[kind]()
    return Credentials((self_signed(key, name),), key)


def accept_anyone(chain: tuple[bytes, ...], server_name: str | None) -> None:
    assert chain


def client_tls(**settings: object) -> ClientTls:
    return ClientTls(**{"alpn": ALPN, "verify_peer": accept_anyone} | settings)  # type: ignore[arg-type]


def server_tls(**settings: object) -> ServerTls:
    defaults: dict[str, object] = {"alpn": ALPN, "verify_peer": accept_anyone}
    if "select_credentials" not in settings:
        defaults["credentials"] = credentials()
    return ServerTls(**defaults | settings)  # type: ignore[arg-type]


@attrs.define
class End:
    """One engine with everything it has reported."""

    engine: Engine
    events: list[TlsEvent] = attrs.field(factory=list)

    def drain(self) -> None:
        while (event := self.engine.next_event()) is not None:
            self.events.append(event)

    def of(self, kind: type[TlsEvent]) -> list[TlsEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    def secrets(self) -> dict[tuple[Level, bool], bytes]:
        return {(e.level, e.sending): e.secret for e in self.events if isinstance(e, KeysReady)}


class Pair:
    """A client and a server, and the wire between them."""

    def __init__(
        self,
        client: ClientTls | None = None,
        server: ServerTls | None = None,
        *,
        server_name: str | None = "example.test",
        ticket: SessionTicket | None = None,
        now: float = 1000.0,
        seed: str = "pair",
        context: bytes = b"context",
        version: int = VERSION_1,
    ) -> None:
        self.now = now
        self.tls_client = TlsClient(
            client or client_tls(),
            server_name=server_name,
            transport_parameters=b"client parameters",
            entropy=drbg(seed + " client"),
            quic_version=version,
            ticket=ticket,
        )
        self.tls_server = TlsServer(
            server or server_tls(),
            transport_parameters=self.server_parameters,
            entropy=drbg(seed + " server"),
            quic_version=version,
            early_data_context=context,
        )
        self.client, self.server = End(self.tls_client), End(self.tls_server)
        self.seen_by_server: list[bytes] = []
        self.tls_client.start(now)
        self.client.drain()

    def server_parameters(self, client_parameters: bytes) -> bytes:
        self.seen_by_server.append(client_parameters)
        return b"server parameters"

    def flight(self, sender: End, receiver: End, *, piece: int = 1 << 20) -> bool:
        """Carry over all that is waiting, cut into pieces; False if nothing was."""
        moved = False
        for level in Level:
            data = sender.engine.take_output(level)
            for start in range(0, len(data), piece):
                receiver.engine.receive(level, data[start : start + piece], self.now)
                receiver.drain()
                moved = True
        return moved

    def run(self, *, piece: int = 1 << 20) -> Pair:
        """Carry flights to and fro until both are silent."""
        while True:
            forth = self.flight(self.client, self.server, piece=piece)
            back = self.flight(self.server, self.client, piece=piece)
            if not forth and not back:
                return self
