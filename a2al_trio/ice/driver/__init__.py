"""The Trio side of ICE: gathering, relays and sessions."""
