"""Golden cases of `delegation_ethereum.json`: Ethereum owners' proofs to judge."""

from __future__ import annotations

from tests.vectors.drivers.delegation import cases

__all__ = ["cases"]
