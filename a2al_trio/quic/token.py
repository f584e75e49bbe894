"""Address validation tokens (RFC 9000 §8.1): what a Retry packet and a NEW_TOKEN frame carry.

The server keeps nothing: a token holds what it must know, sealed and bound to the client's address and the QUIC version
(RFC 9369 §4.1). The first byte tells the two kinds apart, as RFC 9000 §8.1.1 asks, and is covered by the seal too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

import attrs

from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.tls.sealing import RotatingSeal

__all__ = ["NEW_TOKEN_LIFETIME", "RETRY_LIFETIME", "NewToken", "RetryToken", "TokenKeys"]

RETRY_LIFETIME: Final = 15.0
"""Seconds in which the client has to come back with the token of a Retry."""
NEW_TOKEN_LIFETIME: Final = 86_400.0
"""Seconds in which a client may use the token of a NEW_TOKEN frame."""

_RETRY: Final = b"\x52"
_NEW: Final = b"\x4e"


@attrs.frozen
class RetryToken:
    """The client has answered our Retry from the address we sent it to."""

    original_destination_cid: bytes
    """Destination Connection ID of the client's first Initial."""
    retry_source_cid: bytes
    """Source Connection ID of our Retry."""


@attrs.frozen
class NewToken:
    """The client has spoken to us from this IP address before, and not long ago."""


@attrs.define(eq=False)
class TokenKeys:
    """A server's secret for address validation tokens. Times are seconds of one clock."""

    _entropy: Callable[[int], bytes]
    _seal: RotatingSeal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._seal = RotatingSeal(self._entropy, NEW_TOKEN_LIFETIME)

    def seal_retry(self, address: SocketAddress, version: int, content: RetryToken, now: float) -> bytes:
        """Return the token of a Retry packet, good for the very address and port it is sent to."""
        ids = (content.original_destination_cid, content.retry_source_cid)
        body = _milliseconds(now) + b"".join(bytes((len(cid),)) + cid for cid in ids)
        return _RETRY + self._seal.seal(body, _bound(_RETRY, address, version), now)

    def seal_new_token(self, address: SocketAddress, version: int, now: float) -> bytes:
        """Return the token of a NEW_TOKEN frame, good for the IP address from any port."""
        return _NEW + self._seal.seal(_milliseconds(now), _bound(_NEW, address, version), now)

    def open(self, token: bytes, address: SocketAddress, version: int, now: float) -> RetryToken | NewToken | None:
        """Return what an Initial packet's token says, or None when it is not one of ours, not of this address, or old.

        None validates nothing; when the token `looks_like_retry`, the client cannot be sent another Retry, and the
        connection is to be refused with INVALID_TOKEN (RFC 9000 §8.1.3).
        """
        kind = token[:1]
        if kind not in (_RETRY, _NEW):
            return None
        body = self._seal.open(token[1:], _bound(kind, address, version), now)
        if body is None:
            return None
        age = now - int.from_bytes(body[:8], "big") / 1000
        if kind == _NEW:
            return NewToken() if age < NEW_TOKEN_LIFETIME else None
        if age >= RETRY_LIFETIME:
            return None
        source_at = 9 + body[8]
        return RetryToken(body[9:source_at], body[source_at + 1 :])

    @staticmethod
    def looks_like_retry(token: bytes) -> bool:
        """Whether a token that does not open may have been made for a Retry."""
        return token[:1] == _RETRY


def _milliseconds(now: float) -> bytes:
    return int(now * 1000).to_bytes(8, "big")


def _bound(kind: bytes, address: SocketAddress, version: int) -> bytes:
    host = ipaddress.ip_address(address.host.partition("%")[0]).packed
    port = address.port.to_bytes(2, "big") if kind == _RETRY else b""
    return kind + version.to_bytes(4, "big") + host + port
