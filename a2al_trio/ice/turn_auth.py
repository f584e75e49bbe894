"""Long-term credentials on the client's side: answering a server's challenge (RFC 8489 §9.2). Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import attrs

from a2al_trio.ice.stun import (
    Attribute,
    Attributes,
    StunClass,
    StunMessage,
    StunMethod,
    encode_stun,
    long_term_key,
)

__all__ = ["LongTermAuth"]

_NONCE_COOKIE: Final = "obMatJos2"
_ALGORITHM_MD5: Final = 1
_ALGORITHM_SHA256: Final = 2


@attrs.define(eq=False)
class LongTermAuth:
    """A user name and password, and once challenged the realm, nonce and key that go with them."""

    username: str
    password: str = attrs.field(repr=False)
    realm: str = ""
    nonce: bytes = b""
    algorithms: bytes = b""
    _key: bytes = attrs.field(default=b"", repr=False)
    _algorithm: int = 0

    @property
    def ready(self) -> bool:
        """Whether a challenge was taken."""
        return bool(self._key)

    def take_challenge(self, answer: StunMessage) -> bool:
        """Take realm and nonce from an error response; False if it holds none."""
        realm, nonce = answer.text(Attribute.REALM), answer.get(Attribute.NONCE)
        if nonce is None or (realm is None and not self.realm):
            return False
        self.nonce = nonce
        self.realm = realm if realm is not None else self.realm
        self.algorithms = b""
        self._algorithm = 0
        offered = answer.get(Attribute.PASSWORD_ALGORITHMS)
        if offered is not None and _announces_algorithms(nonce):
            self.algorithms = offered
            known = _algorithm_numbers(offered)
            self._algorithm = _ALGORITHM_SHA256 if _ALGORITHM_SHA256 in known else _ALGORITHM_MD5
        self._key = long_term_key(self.username, self.realm, self.password, sha256=self._is_sha256)
        return True

    @property
    def _is_sha256(self) -> bool:
        return self._algorithm == _ALGORITHM_SHA256

    def encode_request(self, method: StunMethod, transaction_id: bytes, attributes: Attributes) -> bytes:
        """Return a request, authenticated if there was a challenge."""
        if not self.ready:
            return encode_stun(StunClass.REQUEST, method, transaction_id, attributes)
        signed = [
            *attributes,
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm.encode()),
            (Attribute.NONCE, self.nonce),
        ]
        if self.algorithms:  # sent back so that nobody on the way can take the stronger ones out
            signed.append((Attribute.PASSWORD_ALGORITHMS, self.algorithms))
            signed.append((Attribute.PASSWORD_ALGORITHM, self._algorithm.to_bytes(2, "big") + b"\0\0"))
        return encode_stun(
            StunClass.REQUEST, method, transaction_id, signed, key=self._key, sha256=bool(self.algorithms)
        )

    def authenticates(self, answer: StunMessage) -> bool:
        """Whether a success response was made by somebody who knows the password too."""
        return answer.has_integrity(self._key)


def _announces_algorithms(nonce: bytes) -> bool:
    """Whether the nonce says that the server means its list of algorithms (RFC 8489 §9.2)."""
    text = nonce.decode("latin-1")
    if not text.startswith(_NONCE_COOKIE):
        return False
    try:
        features = base64.b64decode(text[len(_NONCE_COOKIE) : len(_NONCE_COOKIE) + 4], validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(features) == 3 and bool(features[0] & 0x80)


def _algorithm_numbers(value: bytes) -> set[int]:
    found = set()
    offset = 0
    while offset + 4 <= len(value):
        found.add(int.from_bytes(value[offset : offset + 2], "big"))
        size = int.from_bytes(value[offset + 2 : offset + 4], "big")
        offset += 4 + size + -size % 4
    return found
