"""Hosts on a simulated network in virtual time, and identities that are the same in every run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from a2al_trio.host import Host
from a2al_trio.identity import Identity
from a2al_trio.testing import SimNet, open_simnet
from a2al_trio.testing.hosts import EPOCH, SimNetwork, open_sim_host, unix_time

__all__ = ["ALICE", "BOB", "EPOCH", "SEED", "SimNetwork", "identity", "open_sim_host", "three_hosts", "unix_time"]


def identity(number: int) -> Identity:
    return Identity.from_seed(number.to_bytes(32, "big"))


SEED, ALICE, BOB = identity(1), identity(2), identity(3)


@asynccontextmanager
async def three_hosts() -> AsyncIterator[tuple[SimNet, Host, Host, Host]]:
    """Two hosts that know each other through a third: network, seed, alice and bob."""
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("seed"), SEED) as seed,
        open_sim_host(net.host("alice"), ALICE, seeds=(seed,)) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(seed,)) as bob,
    ):
        yield net, seed, alice, bob
