"""Who a node or agent is: addresses, keys, delegation proofs, certificates and key files (spec 01, spec 04 §4).

Everything here is pure but `files`. `now` is wall time in Unix seconds, entropy a function such as `os.urandom`.
"""

from __future__ import annotations

from a2al_trio.identity.address import ZERO_ADDRESS, Address, AddressVersion, NodeId
from a2al_trio.identity.ed25519 import SigningKey
from a2al_trio.identity.errors import (
    IdentityDecodeError,
    InvalidAddress,
    InvalidCertificate,
    InvalidDelegation,
    KeyFileError,
    WrongPassphrase,
)
from a2al_trio.identity.identity import Identity

__all__ = [
    "ZERO_ADDRESS",
    "Address",
    "AddressVersion",
    "Identity",
    "IdentityDecodeError",
    "InvalidAddress",
    "InvalidCertificate",
    "InvalidDelegation",
    "KeyFileError",
    "NodeId",
    "SigningKey",
    "WrongPassphrase",
]
