"""Consent to send (RFC 7675): it is renewed by authenticated answers and by nothing else."""

from __future__ import annotations

from typing import Final

import attrs

from a2al_trio.machine import Entropy

__all__ = ["CONSENT_EXPIRY", "CONSENT_INTERVAL", "Consent"]

CONSENT_INTERVAL: Final = 5.0
CONSENT_EXPIRY: Final = 30.0
_SILENCE: Final = 7.5
_PROBE_INTERVAL: Final = 1.0
_ULTIMATUM: Final = 6.0


@attrs.define(eq=False)
class Consent:
    """The consent of the peer on the selected pair, last confirmed at `confirmed_at`."""

    entropy: Entropy
    confirmed_at: float
    next_check_at: float = 0.0
    _ultimatum_at: float = float("inf")

    def __attrs_post_init__(self) -> None:
        self.schedule(self.confirmed_at)

    def schedule(self, now: float) -> None:
        """Put off the next check by 4 to 6 s, at random so that peers do not fall into step (RFC 7675 §5.1)."""
        jitter = int.from_bytes(self.entropy(2), "big") / 65536
        self.next_check_at = now + CONSENT_INTERVAL * (0.8 + 0.4 * jitter)

    def checked(self, now: float) -> None:
        """A check was sent. Unanswered, another follows after a second: one lost packet proves nothing."""
        self.next_check_at = now + _PROBE_INTERVAL

    def confirm(self, now: float) -> None:
        """An authenticated answer came."""
        self.confirmed_at = now
        self._ultimatum_at = float("inf")
        self.schedule(now)

    def doubt(self, now: float) -> None:
        """The peer seems to have moved: if the pair does not answer at once, do not wait for it as long as usual."""
        self.confirmed_at = min(self.confirmed_at, now - _SILENCE + 2 * _PROBE_INTERVAL)
        self.next_check_at = now

    def uproot(self, now: float) -> None:
        """Our own network changed: either some pair works within seconds, or none will without a new session."""
        self.doubt(now)
        self._ultimatum_at = now + _ULTIMATUM

    def fall_silent(self, now: float) -> None:
        """The pair is known to be dead: do not wait for checks to go unanswered."""
        self.confirmed_at = min(self.confirmed_at, now - _SILENCE)

    @property
    def silent_at(self) -> float:
        """When several checks will have gone unanswered, and other pairs are worth a try."""
        return self.confirmed_at + _SILENCE

    @property
    def expires_at(self) -> float:
        """When sending must stop."""
        return min(self.confirmed_at + CONSENT_EXPIRY, self._ultimatum_at)
