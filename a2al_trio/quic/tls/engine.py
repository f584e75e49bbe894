"""What client and server share: messages cut from CRYPTO data, output per level, events, and judging certificates.

A handshake is a walk through tables of expected messages. Anything else is an unexpected_message at the first byte, so
a peer can make us keep at most one message of an expected kind, and each kind has its own bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from a2al_trio.quic.tls.codepoints import AlertDescription, HandshakeType, Level
from a2al_trio.quic.tls.config import Credentials, KeyLog, PeerRejected, VerifyPeer
from a2al_trio.quic.tls.errors import TlsAlert, TlsViolation
from a2al_trio.quic.tls.events import HandshakeComplete, KeysReady, TlsEvent
from a2al_trio.quic.tls.key_schedule import KeySchedule, Transcript
from a2al_trio.quic.tls.messages import decode_certificate, decode_certificate_verify, encode_message
from a2al_trio.quic.tls.signatures import check_certificate_verify, choose_scheme, sign_transcript
from a2al_trio.quic.tls.suites import CipherSuite

__all__ = ["Engine", "Handler"]

Handler = Callable[[bytes], None]
"""Takes one whole message, header included."""

_LARGEST: dict[int, int] = {
    HandshakeType.CLIENT_HELLO: 16_384,
    HandshakeType.SERVER_HELLO: 4_096,
    HandshakeType.NEW_SESSION_TICKET: 66_000,
    HandshakeType.ENCRYPTED_EXTENSIONS: 16_384,
    HandshakeType.CERTIFICATE: 65_536,
    HandshakeType.CERTIFICATE_REQUEST: 16_384,
    HandshakeType.CERTIFICATE_VERIFY: 2_048,
    HandshakeType.FINISHED: 64,
}
"""The longest body we take of each message."""

_KEYLOG_LABELS = {
    Level.EARLY: {False: "CLIENT_EARLY_TRAFFIC_SECRET"},
    Level.HANDSHAKE: {False: "CLIENT_HANDSHAKE_TRAFFIC_SECRET", True: "SERVER_HANDSHAKE_TRAFFIC_SECRET"},
    Level.ONE_RTT: {False: "CLIENT_TRAFFIC_SECRET_0", True: "SERVER_TRAFFIC_SECRET_0"},
}


class Engine:
    """One side of a handshake; `TlsClient` and `TlsServer` are the two kinds.

    After `receive` has raised, the handshake is over, and every further call raises the same alert again.
    """

    __slots__ = (
        "_client_random",
        "_entropy",
        "_events",
        "_expected",
        "_failure",
        "_keylog",
        "_now",
        "_output",
        "_partial",
        "_read_level",
        "_schedule",
        "_suite",
        "_transcript",
        "alpn",
        "complete",
        "early_data_accepted",
        "peer_certificates",
        "quic_version",
        "resumed",
        "server_name",
    )

    is_server: ClassVar[bool]

    def __init__(
        self, *, entropy: Callable[[int], bytes], quic_version: int, keylog: KeyLog | None, first_level: Level
    ) -> None:
        self.complete = False
        """Whether our side is done."""
        self.alpn: str | None = None
        self.server_name: str | None = None
        self.peer_certificates: tuple[bytes, ...] = ()
        """The peer's chain (DER, leaf first); judged by `verify_peer` and proven once `complete`."""
        self.resumed = False
        self.early_data_accepted = False
        self.quic_version = quic_version
        """The version in use; whoever negotiates another one sets it. Session tickets are good for one version."""
        self._entropy = entropy
        self._keylog = keylog
        self._client_random = b""
        self._now = 0.0
        self._read_level = first_level
        self._partial = bytearray()
        self._expected: dict[int, Handler] = {}
        self._output: dict[Level, bytearray] = {}
        self._events: list[TlsEvent] = []
        self._failure: TlsAlert | None = None
        self._suite = CipherSuite.AES_128_GCM_SHA256
        self._transcript: Transcript
        self._schedule: KeySchedule

    # --- what the connection calls ---------------------------------------------------------------------------

    def receive(self, level: Level, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take CRYPTO data of a level, in order and without gaps; raises `TlsAlert`.

        What a `ServerTls.select_credentials` or transport parameter callback raises passes through.
        """
        if self._failure is not None:
            raise self._failure
        self._now = now
        try:
            if level is not self._read_level:
                raise TlsViolation(f"{level.name} handshake data when {self._read_level.name} is due")
            self._partial += data
            while self._take_message():
                pass
        except TlsAlert as alert:
            self._failure = alert
            raise

    def take_output(self, level: Level) -> bytes:
        """Return the handshake bytes to send at a level, once; empty when there are none."""
        output = self._output.pop(level, None)
        return bytes(output) if output else b""

    @property
    def has_output(self) -> bool:
        """Whether `take_output` has something to give at any level."""
        return bool(self._output)

    def next_event(self) -> TlsEvent | None:
        """Return the next thing that happened, oldest first."""
        return self._events.pop(0) if self._events else None

    # --- messages --------------------------------------------------------------------------------------------

    def _take_message(self) -> bool:
        """Handle the next message if it is all there."""
        partial = self._partial
        if not partial:
            return False
        kind = partial[0]
        handler = self._expected.get(kind)
        if handler is None:
            raise TlsAlert(AlertDescription.UNEXPECTED_MESSAGE, f"handshake message {kind} is not due")
        if len(partial) < 4:
            return False
        size = int.from_bytes(partial[1:4], "big")
        if size > _LARGEST[kind]:
            raise TlsAlert(AlertDescription.DECODE_ERROR, f"handshake message {kind} of {size} bytes is too long")
        if len(partial) < 4 + size:
            return False
        message = bytes(partial[: 4 + size])
        del partial[: 4 + size]
        level = self._read_level
        handler(message)
        if partial and self._read_level is not level:  # RFC 8446 §5.1
            raise TlsAlert(AlertDescription.UNEXPECTED_MESSAGE, "handshake data goes on across a change of keys")
        return True

    def _send(self, level: Level, message: bytes) -> None:
        """Queue a message and take it into the transcript."""
        self._transcript.add(message)
        self._queue(level, message)

    def _queue(self, level: Level, message: bytes) -> None:
        self._output.setdefault(level, bytearray()).extend(message)

    # --- steps both sides take -------------------------------------------------------------------------------

    def _keys_ready(self, level: Level, secret: bytes, *, of_server: bool) -> None:
        """Announce one side's traffic secret."""
        if self._keylog is not None:
            self._keylog(f"{_KEYLOG_LABELS[level][of_server]} {self._client_random.hex()} {secret.hex()}")
        self._events.append(KeysReady(level, of_server is self.is_server, self._suite, secret))

    def _handshake_keys_ready(self) -> None:
        self._keys_ready(Level.HANDSHAKE, self._schedule.client_handshake, of_server=False)
        self._keys_ready(Level.HANDSHAKE, self._schedule.server_handshake, of_server=True)
        self._read_level = Level.HANDSHAKE

    def _send_certificate_verify(self, credentials: Credentials, peer_schemes: tuple[int, ...]) -> None:
        scheme = choose_scheme(credentials.private_key, peer_schemes)
        if scheme is None:
            raise TlsAlert(AlertDescription.HANDSHAKE_FAILURE, "the peer cannot check signatures by our key")
        proof = sign_transcript(credentials.private_key, scheme, self._transcript.digest(), as_server=self.is_server)
        self._send(Level.HANDSHAKE, encode_message(HandshakeType.CERTIFICATE_VERIFY, proof))

    def _send_finished(self) -> None:
        digest = self._transcript.digest()
        proof = self._schedule.finished(by_server=self.is_server, transcript_hash=digest)
        self._send(Level.HANDSHAKE, encode_message(HandshakeType.FINISHED, proof))

    def _check_peer_finished(self, message: bytes) -> None:
        digest = self._transcript.digest()
        if not self._schedule.check_finished(message[4:], by_server=not self.is_server, transcript_hash=digest):
            raise TlsAlert(AlertDescription.DECRYPT_ERROR, "the peer's Finished is wrong")
        self._transcript.add(message)

    def _on_certificate(self, message: bytes) -> None:
        self.peer_certificates = decode_certificate(message[4:])
        self._transcript.add(message)
        if self.peer_certificates:
            self._expected = {HandshakeType.CERTIFICATE_VERIFY: self._on_certificate_verify}
        else:
            self._on_empty_certificate()

    def _on_empty_certificate(self) -> None:
        raise NotImplementedError

    def _on_certificate_verify(self, message: bytes) -> None:
        proof = decode_certificate_verify(message[4:])
        digest = self._transcript.digest()
        check_certificate_verify(self.peer_certificates[0], proof, digest, from_server=not self.is_server)
        self._transcript.add(message)
        self._judge_peer()
        self._expected = {HandshakeType.FINISHED: self._on_finished}

    def _on_finished(self, message: bytes) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        """Our side is done; what only a handshake needs must not burden a long connection."""
        self.complete = True
        self._read_level = Level.ONE_RTT
        self._events.append(HandshakeComplete())
        del self._transcript, self._schedule

    def _judge_peer(self) -> None:
        """Ask the user about the peer's certificates."""
        verify = self._verify_peer
        assert verify is not None
        try:
            verify(self.peer_certificates, self.server_name)
        except PeerRejected as rejection:
            raise TlsAlert(rejection.alert, rejection.reason) from rejection

    @property
    def _verify_peer(self) -> VerifyPeer | None:
        raise NotImplementedError
