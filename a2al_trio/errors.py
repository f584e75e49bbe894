"""The one hierarchy of errors users of this package meet.

Each layer subclasses these where it has more to say (its own `DecodeError`, for one), so that a caller can
catch as widely or as narrowly as it likes. Errors name the peer, the operation and the last known cause.
"""

from __future__ import annotations

import enum

import attrs
import trio

__all__ = [
    "A2alError",
    "AttemptFailure",
    "CloseCause",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLost",
    "DecodeError",
    "IdentityMismatch",
    "LocalProtocolError",
    "NoRoute",
    "ProtocolError",
    "RecordInvalid",
    "RecordNotFound",
    "Refused",
    "RemoteProtocolError",
    "ResolveError",
    "ServiceCrashed",
    "StreamReset",
    "StreamStopped",
]


class A2alError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(A2alError):
    """The caller set something up wrongly; the message names the setting and the fix."""


class ProtocolError(A2alError):
    """A protocol rule was broken; abstract, see the subclasses for by whom."""


class LocalProtocolError(ProtocolError):
    """The caller asked for something the protocol forbids in the present state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


class DecodeError(RemoteProtocolError):
    """Bytes from outside do not decode. The only error a `decode_*` function may raise."""


@attrs.frozen
class AttemptFailure:
    """One failed way of reaching a peer: its name and why it failed."""

    name: str
    error: BaseException

    def __str__(self) -> str:
        text = str(self.error)
        return f"{self.name}: {text or type(self.error).__name__}"


class ConnectError(A2alError):
    """No way to the peer worked.

    `attempts` names every way that was tried with its reason, in the order the ways were started.
    """

    def __init__(self, message: str, attempts: tuple[AttemptFailure, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.attempts = attempts

    def __str__(self) -> str:
        if not self.attempts:
            return self.message
        return self.message + ": " + "; ".join(str(attempt) for attempt in self.attempts)


class NoRoute(ConnectError):
    """There is no endpoint of the peer that this host could dial."""


class IdentityMismatch(ConnectError):
    """Somebody answered, but it is not the expected agent."""


class Refused(ConnectError):
    """The peer answered and refused."""


class CloseCause(enum.Enum):
    """Who or what ended a connection."""

    LOCAL = "closed here"
    PEER_APP = "closed by the peer's application"
    PEER_TRANSPORT = "closed by the peer's transport"
    LOCAL_TRANSPORT = "closed here because the peer broke the protocol"
    IDLE = "idle timeout"
    PATH = "the path to the peer was lost"
    RESET = "stateless reset by the peer"


class ConnectionLost(A2alError, trio.BrokenResourceError):
    """The connection ended otherwise than by the caller's own close.

    `by` says who ended it, `code` and `reason` are what was said (application codes for `PEER_APP`, RFC 9000
    §20 codes otherwise).
    """

    def __init__(self, by: CloseCause, code: int = 0, reason: str = "") -> None:
        text = by.value
        if code:
            text += f" (code {code:#x})"
        if reason:
            text += f": {reason}"
        super().__init__(text)
        self.by = by
        self.code = code
        self.reason = reason


class StreamReset(A2alError, trio.BrokenResourceError):
    """The peer abandoned its sending direction of the stream (RFC 9000 §19.4)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stream reset by the peer with code {code:#x}")
        self.code = code


class StreamStopped(A2alError, trio.BrokenResourceError):
    """The peer no longer reads what we send on the stream (RFC 9000 §19.5)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the peer stopped reading the stream with code {code:#x}")
        self.code = code


class ResolveError(A2alError):
    """An AID could not be resolved to an endpoint record."""


class RecordNotFound(ResolveError):
    """No node that was asked holds a record for the AID."""


class RecordInvalid(ResolveError):
    """A record exists but cannot be used: expired, badly signed or not authorised."""


class ServiceCrashed(A2alError):
    """A background task of a service failed; the cause is the exception group of what it raised."""
