"""What the ends of agent streams mean, in words for people (spec 08 §4)."""

from __future__ import annotations

from a2al_trio.errors import ConnectionLost, StreamReset, StreamStopped
from a2al_trio.wire import StreamErrorCode

__all__ = ["explain"]

CODES = {
    StreamErrorCode.ACCESS_DENIED: "the agent denies us access",
    StreamErrorCode.NO_SERVICE: "the agent has no service",
    StreamErrorCode.SERVICE_UNREACHABLE: "the agent's service is down, or broke off",
}


def explain(error: BaseException) -> str:
    """Say why an exchange was broken off."""
    if isinstance(error, (StreamReset, StreamStopped)):
        for code, meaning in CODES.items():
            if error.code == code:
                return meaning
    return str(error) if isinstance(error, ConnectionLost) else f"the exchange was broken off: {error}"
