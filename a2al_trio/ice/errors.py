"""What can go wrong while finding a path."""

from __future__ import annotations

from a2al_trio.errors import A2alError, DecodeError

__all__ = ["CandidateDecodeError", "IceError", "IceFailed", "RelayFailed", "StunDecodeError"]


class StunDecodeError(DecodeError):
    """A datagram is no well-formed STUN message (RFC 8489 §5) or TURN channel data (RFC 8656 §12)."""


class CandidateDecodeError(DecodeError):
    """A candidate line does not parse (RFC 8839 §5.1)."""


class IceError(A2alError):
    """Base of the errors of the ICE layer."""


class IceFailed(IceError):
    """No pair of candidates works; the message says what was tried."""


class RelayFailed(IceError):
    """A TURN server cannot be used: unreachable, unauthorised or out of capacity."""
