"""The identity of a node or agent: its address, its operational key and, if delegated, the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.identity.ed25519 import SigningKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Identity"]


@attrs.frozen
class Identity:
    """Who we are: `key` signs messages, records and handshakes for `address`.

    Without `delegation` the address is the key's own. With it, `delegation` is the encoded proof by which the
    owner of `address` lets `key` act for it (spec 01 §6).
    """

    address: Address
    key: SigningKey
    delegation: bytes | None = attrs.field(default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.delegation is None and self.address != Address.from_public_key(self.key.public_key):
            raise ConfigurationError(
                f"the key is not the one of {self.address}; give its delegation proof (Identity.delegated) "
                "or use the address of the key (Identity.from_seed)"
            )

    @classmethod
    def generate(cls, entropy: Callable[[int], bytes]) -> Self:
        """Make a new identity with a key drawn from `entropy` (`os.urandom`)."""
        return cls.from_key(SigningKey.generate(entropy))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Identity of the Ed25519 key with this 32-byte seed."""
        return cls.from_key(SigningKey(seed))

    @classmethod
    def from_key(cls, key: SigningKey) -> Self:
        """Identity of `key` itself, not delegated."""
        return cls(Address.from_public_key(key.public_key), key)

    @property
    def public_key(self) -> bytes:
        """The operational public key, 32 bytes."""
        return self.key.public_key

    @property
    def node_id(self) -> NodeId:
        """The address's place in the DHT."""
        return self.address.node_id

    @property
    def is_delegated(self) -> bool:
        """Whether the key acts for an address that is not its own."""
        return self.delegation is not None

    def sign(self, message: bytes) -> bytes:
        """64-byte Ed25519 signature by the operational key."""
        return self.key.sign(message)
