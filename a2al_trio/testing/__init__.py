"""Tools for testing applications and this package itself: a simulated internet in virtual time.

Nothing here is needed at run time, and nothing else imports it.
"""

from __future__ import annotations

from a2al_trio.testing.leaks import Leak, cancelled_after, no_leaks
from a2al_trio.testing.link import Link, Packet
from a2al_trio.testing.nat import Dependence, Nat
from a2al_trio.testing.net import SimHost, SimNat, SimNet, open_simnet
from a2al_trio.testing.pcap import PcapWriter
from a2al_trio.testing.socket import SimSocket
from a2al_trio.testing.stream import SimListener, SimStream

__all__ = [
    "Dependence",
    "Leak",
    "Link",
    "Nat",
    "Packet",
    "PcapWriter",
    "SimHost",
    "SimListener",
    "SimNat",
    "SimNet",
    "SimSocket",
    "SimStream",
    "cancelled_after",
    "no_leaks",
    "open_simnet",
]
