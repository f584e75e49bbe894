"""The distributed hash table: nodes, records, and how they find each other (spec 03)."""

from a2al_trio.dht.commands import BootstrapFailed, PeerSilent, PingResult
from a2al_trio.dht.config import DhtConfig, Diversity, RequestBudget, StoreLimits
from a2al_trio.dht.contact import Contact
from a2al_trio.dht.events import MailWaiting, Observation, PeerUnreachable
from a2al_trio.dht.outbox import Route
from a2al_trio.dht.report import Statistics
from a2al_trio.dht.service import Dht, open_dht
from a2al_trio.dht.store import KeyMismatch, PolicyRefused, StaleRecord
from a2al_trio.dht.units import Publication

__all__ = [
    "BootstrapFailed",
    "Contact",
    "Dht",
    "DhtConfig",
    "Diversity",
    "KeyMismatch",
    "MailWaiting",
    "Observation",
    "PeerSilent",
    "PeerUnreachable",
    "PingResult",
    "PolicyRefused",
    "Publication",
    "RequestBudget",
    "Route",
    "StaleRecord",
    "Statistics",
    "StoreLimits",
    "open_dht",
]
