"""Golden cases of `delegation_paralism.json`: Paralism owners' proofs to judge."""

from __future__ import annotations

from tests.vectors.drivers.delegation import cases

__all__ = ["cases"]
