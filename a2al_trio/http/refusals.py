"""What the ends of agent streams mean, in words for people (spec 08 §4) and as errors."""

from __future__ import annotations

import httpx

from a2al_trio.errors import ConnectionLost, StreamReset, StreamStopped
from a2al_trio.wire import StreamErrorCode

__all__ = ["NotProcessed", "explain"]

CODES = {
    StreamErrorCode.ACCESS_DENIED: "the agent denies us access",
    StreamErrorCode.NO_SERVICE: "the agent has no service",
    StreamErrorCode.SERVICE_UNREACHABLE: "the agent's service is down, or broke off",
}


class NotProcessed(httpx.ConnectError):
    """The agent has not processed the request: it can be sent again on another connection (RFC 9114 §4.1.1, §5.2)."""


def explain(error: BaseException) -> str:
    """Say why an exchange was broken off."""
    if isinstance(error, (StreamReset, StreamStopped)):
        for code, meaning in CODES.items():
            if error.code == code:
                return meaning
    return str(error) if isinstance(error, ConnectionLost) else f"the exchange was broken off: {error}"
