"""Judging certificates by the ordinary rules: a chain to a trusted root, its dates, and the host name (RFC 5280, 9525).

For users of QUIC alone. Agents are known by their addresses instead and bring a `verify_peer` of their own.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable

import attrs
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from a2al_trio.errors import ConfigurationError
from a2al_trio.quic.tls.codepoints import AlertDescription
from a2al_trio.quic.tls.config import VerifyPeer
from a2al_trio.quic.tls.errors import PeerRejected
from a2al_trio.quic.tls.loading import load_certificate

__all__ = ["TrustStore", "pinned"]


@attrs.frozen
class TrustStore:
    """Roots that are trusted to vouch for hosts and clients.

    Its methods are `verify_peer` callbacks: `ClientTls(verify_peer=store.verify_server)` asks for what a browser would,
    `ServerTls(verify_peer=store.verify_client)` for any client a root vouches for.
    """

    _store: Store
    _clock: Callable[[], float]
    """Gives the wall time in seconds since 1970, as `time.time` does."""

    @classmethod
    def from_pem(cls, bundle: bytes, *, clock: Callable[[], float]) -> TrustStore:
        """Trust every certificate of a PEM bundle; raises `ConfigurationError` when it holds none."""
        try:
            roots = x509.load_pem_x509_certificates(bundle)
        except ValueError as error:
            raise ConfigurationError(f"the bundle of trusted certificates does not load: {error}") from error
        return cls(Store(roots), clock)

    def verify_server(self, chain: tuple[bytes, ...], server_name: str | None) -> None:
        """Accept a chain that leads to a root, is valid now and names the host (or IP address) that was asked for."""
        if server_name is None:
            raise PeerRejected("no server name was given to compare the certificate with")
        leaf, intermediates = _load(chain)
        try:
            verifier = self._policy().build_server_verifier(_subject(server_name))
        except ValueError as error:
            raise PeerRejected(f"no certificate can be good for {server_name!r}, which is no host name") from error
        try:
            verifier.verify(leaf, intermediates)
        except (VerificationError, ValueError) as error:
            raise _rejection(f"the certificate is not good for {server_name}", error) from error

    def verify_client(self, chain: tuple[bytes, ...], server_name: str | None) -> None:
        """Accept a chain that leads to a root and is valid now, whoever it names."""
        leaf, intermediates = _load(chain)
        try:
            self._policy().build_client_verifier().verify(leaf, intermediates)
        except (VerificationError, ValueError) as error:
            raise _rejection("the client's certificate is not good", error) from error

    def _policy(self) -> PolicyBuilder:
        now = datetime.datetime.fromtimestamp(self._clock(), datetime.UTC).replace(tzinfo=None)
        return PolicyBuilder().store(self._store).time(now)


def pinned(*leaves: bytes) -> VerifyPeer:
    """Return a `verify_peer` that accepts these certificates (DER) and nothing else, whatever they say."""
    if not leaves:
        raise ConfigurationError("pinned() needs at least one certificate")

    def verify(chain: tuple[bytes, ...], server_name: str | None) -> None:
        if chain[0] not in leaves:
            raise PeerRejected("the certificate is not one of those pinned", AlertDescription.CERTIFICATE_UNKNOWN)

    return verify


def _load(chain: tuple[bytes, ...]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    certificates = [load_certificate(certificate) for certificate in chain]
    return certificates[0], certificates[1:]


def _subject(server_name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(server_name))
    except ValueError:
        return x509.DNSName(server_name)


# A ValueError from the verifier is an extension of the chain that does not parse: it reads them when it needs them.
def _rejection(what: str, error: Exception) -> PeerRejected:
    return PeerRejected(f"{what}: {error}", AlertDescription.CERTIFICATE_UNKNOWN)
