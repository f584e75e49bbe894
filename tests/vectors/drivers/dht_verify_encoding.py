"""Datagrams in unusual and malformed encodings, given to the verifier."""

from __future__ import annotations

from tests.vectors.drivers.dht_verify import cases

__all__ = ["cases"]
