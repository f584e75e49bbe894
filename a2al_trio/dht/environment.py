"""What a core is given from outside: who it is, its settings, randomness and the wall clock."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from a2al_trio.dht.config import DhtConfig
from a2al_trio.dht.distance import as_int
from a2al_trio.identity import ed25519
from a2al_trio.identity.identity import Identity
from a2al_trio.machine import Entropy
from a2al_trio.wire.records import Verify

__all__ = ["Environment"]


@attrs.define(eq=False)
class Environment:
    """The inputs of a DHT core; `unix_time` is asked only where a record's validity depends on it."""

    identity: Identity
    config: DhtConfig
    entropy: Entropy
    unix_time: Callable[[], float]
    verify: Verify = ed25519.verify
    own: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.own = as_int(self.identity.node_id)

    def unix_seconds(self) -> int:
        """Wall time in whole seconds, as records count it."""
        return int(self.unix_time())
