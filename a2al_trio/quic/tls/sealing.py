"""Sealing a server's state into what it hands out: session tickets and address validation tokens.

The key is drawn from entropy and never leaves the process, so what an earlier run handed out is simply not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["NONCE_SIZE", "RotatingSeal"]

NONCE_SIZE: Final = 12


@attrs.define(eq=False)
class RotatingSeal:
    """AES-128-GCM under a key that is renewed every `period` seconds; the key before is kept one period longer.

    Whatever is sealed can be opened for at least `period`, and whoever learns a key reads at most two periods.
    """

    _entropy: Callable[[int], bytes]
    period: float
    _current: AESGCM | None = attrs.field(default=None, init=False)
    _previous: AESGCM | None = attrs.field(default=None, init=False)
    _current_since: float = attrs.field(default=0.0, init=False)

    def seal(self, content: bytes, bound_to: bytes, now: float) -> bytes:
        """Return a nonce and the sealed content, which opens only together with the same `bound_to`."""
        key, nonce = self._renewed(now), self._entropy(NONCE_SIZE)
        return nonce + key.encrypt(nonce, content, bound_to)

    def open(self, sealed: bytes, bound_to: bytes, now: float) -> bytes | None:
        """Return the content, or None when it was not sealed here, is too old, or is bound to something else."""
        nonce, ciphertext = sealed[:NONCE_SIZE], sealed[NONCE_SIZE:]
        if len(ciphertext) < 16:
            return None
        for key in (self._renewed(now), self._previous):
            if key is not None:
                try:
                    return key.decrypt(nonce, ciphertext, bound_to)
                except InvalidTag:
                    continue
        return None

    def _renewed(self, now: float) -> AESGCM:
        """Return the current key, after making a new one if it is due."""
        age = now - self._current_since
        if self._current is None or age >= self.period:
            self._previous = self._current if age < 2 * self.period else None
            self._current = AESGCM(self._entropy(16))
            self._current_since = now
        return self._current
