"""The TLS 1.3 key schedule (RFC 8446 §7.1) and the transcript it binds secrets to (§4.4.1)."""

from __future__ import annotations

import functools
import hashlib
import hmac

from a2al_trio.quic.tls.codepoints import HandshakeType
from a2al_trio.quic.tls.hkdf import HashName, HmacKey, expand_label, hkdf_extract
from a2al_trio.quic.tls.suites import CipherSuite

__all__ = ["KeySchedule", "Transcript", "binder", "early_traffic_secret", "resumption_psk"]


class Transcript:
    """The running hash over all handshake messages."""

    __slots__ = ("_hash", "_hash_name")

    def __init__(self, hash_name: HashName) -> None:
        self._hash_name = hash_name
        self._hash = hashlib.new(hash_name)

    def add(self, message: bytes) -> None:
        """Take one whole message in."""
        self._hash.update(message)

    def digest(self) -> bytes:
        """Return the hash over all messages so far."""
        return self._hash.digest()

    def fold(self) -> None:
        """Replace the first ClientHello by its hash, as a HelloRetryRequest asks (§4.4.1)."""
        digest = self._hash.digest()
        self._hash = hashlib.new(self._hash_name)
        self.add(bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(digest))) + digest)

    def digest_with(self, message: bytes) -> bytes:
        """Return what the hash would be after `message`."""
        copy = self._hash.copy()
        copy.update(message)
        return copy.digest()


@functools.cache
def _empty_hash(hash_name: HashName) -> bytes:
    return hashlib.new(hash_name).digest()


@functools.cache
def _no_psk_early_secret(suite: CipherSuite) -> bytes:
    zeros = bytes(suite.hash_size)
    return hkdf_extract(suite.hash_name, zeros, zeros)


@functools.cache
def _no_psk_handshake_salt(suite: CipherSuite) -> bytes:
    """The salt of the handshake secret is a constant of the suite when there is no pre-shared key."""
    return _derived(suite, HmacKey(suite.hash_name, _no_psk_early_secret(suite)))


def _derived(suite: CipherSuite, secret: HmacKey) -> bytes:
    return secret.expand_label("derived", _empty_hash(suite.hash_name), suite.hash_size)


def _early_secret(suite: CipherSuite, psk: bytes) -> HmacKey:
    return HmacKey(suite.hash_name, hkdf_extract(suite.hash_name, bytes(suite.hash_size), psk))


def binder(suite: CipherSuite, psk: bytes, transcript_hash: bytes) -> bytes:
    """Return the proof of a resumption key over the ClientHello that offers it (§4.2.11.2)."""
    empty = _empty_hash(suite.hash_name)
    binder_key = _early_secret(suite, psk).expand_label("res binder", empty, suite.hash_size)
    return _finished(suite, binder_key, transcript_hash)


def early_traffic_secret(suite: CipherSuite, psk: bytes, transcript_hash: bytes) -> bytes:
    """Return client_early_traffic_secret, which protects 0-RTT packets."""
    return _early_secret(suite, psk).expand_label("c e traffic", transcript_hash, suite.hash_size)


def resumption_psk(suite: CipherSuite, resumption_secret: bytes, nonce: bytes) -> bytes:
    """Return the pre-shared key that belongs to one session ticket (§4.6.1)."""
    return expand_label(suite.hash_name, resumption_secret, "resumption", nonce, suite.hash_size)


def _finished(suite: CipherSuite, base_key: bytes, transcript_hash: bytes) -> bytes:
    key = expand_label(suite.hash_name, base_key, "finished", b"", suite.hash_size)
    return HmacKey(suite.hash_name, key).digest(transcript_hash)


class KeySchedule:
    """The secrets of one handshake from the key exchange on, each made when the transcript stands where it must."""

    __slots__ = ("_handshake", "_master", "_suite", "client_handshake", "server_handshake")

    def __init__(self, suite: CipherSuite, shared_secret: bytes, hello_hash: bytes, psk: bytes | None) -> None:
        """`hello_hash` is the transcript up to and including the ServerHello."""
        self._suite = suite
        salt = _no_psk_handshake_salt(suite) if psk is None else _derived(suite, _early_secret(suite, psk))
        self._handshake = HmacKey(suite.hash_name, hkdf_extract(suite.hash_name, salt, shared_secret))
        self.client_handshake = self._handshake.expand_label("c hs traffic", hello_hash, suite.hash_size)
        self.server_handshake = self._handshake.expand_label("s hs traffic", hello_hash, suite.hash_size)
        self._master: HmacKey | None = None

    def application_secrets(self, transcript_hash: bytes) -> tuple[bytes, bytes]:
        """Return the client's and the server's 1-RTT secrets; the transcript ends with the server's Finished."""
        suite = self._suite
        salt = _derived(suite, self._handshake)
        self._master = HmacKey(suite.hash_name, hkdf_extract(suite.hash_name, salt, bytes(suite.hash_size)))
        return (
            self._master.expand_label("c ap traffic", transcript_hash, suite.hash_size),
            self._master.expand_label("s ap traffic", transcript_hash, suite.hash_size),
        )

    def resumption_secret(self, transcript_hash: bytes) -> bytes:
        """Return resumption_master_secret; the transcript ends with the client's Finished."""
        assert self._master is not None
        return self._master.expand_label("res master", transcript_hash, self._suite.hash_size)

    def finished(self, *, by_server: bool, transcript_hash: bytes) -> bytes:
        """Return the verify_data of one side's Finished."""
        return _finished(self._suite, self.server_handshake if by_server else self.client_handshake, transcript_hash)

    def check_finished(self, received: bytes, *, by_server: bool, transcript_hash: bytes) -> bool:
        """Whether the peer's verify_data is right."""
        return hmac.compare_digest(received, self.finished(by_server=by_server, transcript_hash=transcript_hash))
