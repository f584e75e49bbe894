"""ICE, STUN and TURN: pure agents, and sessions that yield a nominated path as a datagram socket (spec 06 §10-§13)."""
