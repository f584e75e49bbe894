"""The identity of a node or agent: its address, its operational key and, if delegated, the proof."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity.address import Address, NodeId
from a2al_trio.identity.delegation import CLOCK_TOLERANCE, decode_delegation
from a2al_trio.identity.ed25519 import SigningKey
from a2al_trio.identity.errors import InvalidDelegation

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
        if self.delegation is None:
            if self.address != Address.from_public_key(self.key.public_key):
                raise ConfigurationError(
                    f"the key is not the one of {self.address}; give its delegation proof (Identity.delegated) "
                    "or use the address of the key (Identity.from_key)"
                )
            return
        try:
            proof = decode_delegation(self.delegation)
        except InvalidDelegation as error:
            raise ConfigurationError(f"the delegation proof for {self.address} is unusable: {error}") from None
        if (proof.agent, proof.operational_key) != (self.address, self.key.public_key):
            raise ConfigurationError(f"the delegation proof is not by {self.address} for this operational key")

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

    @classmethod
    def delegated(cls, key: SigningKey, delegation: bytes, *, now: float) -> Self:
        """Identity of the address that delegated to `key` by the encoded proof `delegation`.

        Raises `ConfigurationError` when the proof is for another key or does not hold at `now` (Unix seconds).
        """
        try:
            proof = decode_delegation(delegation)
        except InvalidDelegation as error:
            raise ConfigurationError(f"unusable delegation proof: {error}") from None
        identity = cls(proof.agent, key, proof.encode())
        identity.check(now=now, tolerance=0)
        return identity

    def check(self, *, now: float, tolerance: float = CLOCK_TOLERANCE) -> None:
        """Raise `ConfigurationError` unless peers would accept us at `now` (Unix seconds)."""
        if self.delegation is None:
            return
        try:
            proof = decode_delegation(self.delegation)
            proof.verify(now=now, tolerance=tolerance, operational_key=self.key.public_key)
        except InvalidDelegation as error:
            raise ConfigurationError(f"{error}; let the owner of {self.address} issue a new delegation") from None

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
