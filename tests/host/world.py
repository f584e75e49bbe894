"""Hosts on a simulated network in virtual time, and identities that are the same in every run."""

from __future__ import annotations

from a2al_trio.identity import Identity
from a2al_trio.testing.hosts import EPOCH, SimNetwork, open_sim_host, unix_time

__all__ = ["EPOCH", "SimNetwork", "identity", "open_sim_host", "unix_time"]


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))
