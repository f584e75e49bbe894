"""Meeting behind NATs: QUIC over ICE paths agreed on at a hub, and the pool of punched DHT connections (spec 06)."""

from a2al_trio.punch.meeting import Meeting, MeetingPlace, open_incoming, open_outgoing

__all__ = ["Meeting", "MeetingPlace", "open_incoming", "open_outgoing"]
