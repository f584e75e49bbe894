"""Meeting behind NATs: QUIC over ICE paths agreed on at a hub, and the pool of punched DHT connections (spec 06)."""

from a2al_trio.punch.meeting import Meeting, MeetingPlace, open_incoming, open_outgoing
from a2al_trio.punch.pool import PunchedRoute, PunchPool, pool_place
from a2al_trio.punch.sync import PunchSide
from a2al_trio.punch.turns import Turn, Turns

__all__ = [
    "Meeting",
    "MeetingPlace",
    "PunchPool",
    "PunchSide",
    "PunchedRoute",
    "Turn",
    "Turns",
    "open_incoming",
    "open_outgoing",
    "pool_place",
]
