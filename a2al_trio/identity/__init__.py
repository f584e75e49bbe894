"""Who a node or agent is: addresses, keys, delegation proofs, certificates and key files (spec 01, spec 04 §4).

Everything here is pure but `files`. `now` is wall time in Unix seconds, entropy a function such as `os.urandom`.
"""

from __future__ import annotations

from a2al_trio.identity.address import ZERO_ADDRESS, Address, AddressVersion, NodeId
from a2al_trio.identity.certificate import (
    certificate_renewal_time,
    make_certificate,
    peer_address,
    verify_peer,
)
from a2al_trio.identity.delegation import (
    CLOCK_TOLERANCE,
    DelegationProof,
    decode_delegation,
    import_chain_delegation,
    issue_chain_delegation,
    issue_delegation,
)
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
from a2al_trio.identity.statement import compose_statement

__all__ = [
    "CLOCK_TOLERANCE",
    "ZERO_ADDRESS",
    "Address",
    "AddressVersion",
    "DelegationProof",
    "Identity",
    "IdentityDecodeError",
    "InvalidAddress",
    "InvalidCertificate",
    "InvalidDelegation",
    "KeyFileError",
    "NodeId",
    "SigningKey",
    "WrongPassphrase",
    "certificate_renewal_time",
    "compose_statement",
    "decode_delegation",
    "import_chain_delegation",
    "issue_chain_delegation",
    "issue_delegation",
    "make_certificate",
    "peer_address",
    "verify_peer",
]
