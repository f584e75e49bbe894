"""How a handshake fails: `TlsAlert` is the one error of this layer."""

from __future__ import annotations

from a2al_trio.errors import A2alError, DecodeError
from a2al_trio.quic.tls.codepoints import AlertDescription

__all__ = ["PeerRejected", "TlsAlert", "TlsViolation"]


class TlsAlert(DecodeError):
    """The handshake cannot go on; `alert` is what the peer is to be told, `reason` is for people.

    Raised for anything wrong with what the peer sent, its certificate included.
    """

    def __init__(self, alert: AlertDescription, reason: str) -> None:
        super().__init__(f"TLS alert {alert.name.lower()}: {reason}")
        self.alert = alert
        self.reason = reason

    @property
    def quic_error_code(self) -> int:
        """The CRYPTO_ERROR code of the alert (RFC 9001 §4.8)."""
        return 0x100 + self.alert


class TlsViolation(TlsAlert):
    """TLS was used in a way QUIC forbids: the connection ends with PROTOCOL_VIOLATION instead of an alert."""

    def __init__(self, reason: str) -> None:
        super().__init__(AlertDescription.UNEXPECTED_MESSAGE, reason)

    @property
    def quic_error_code(self) -> int:
        """PROTOCOL_VIOLATION (RFC 9000 §20.1)."""
        return 0x0A


class PeerRejected(A2alError):
    """Raised by a `verify_peer` callback that does not accept the peer's certificates.

    `alert` is what the peer is told: bad_certificate unless another description fits better.
    """

    def __init__(self, reason: str, alert: AlertDescription = AlertDescription.BAD_CERTIFICATE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alert = alert
