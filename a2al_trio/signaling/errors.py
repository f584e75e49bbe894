"""What can go wrong on the way through a signaling hub."""

from __future__ import annotations

from a2al_trio.errors import A2alError, DecodeError

__all__ = [
    "HubUnreachable",
    "NoAgent",
    "NoPartner",
    "RoomClosed",
    "SignalingDecodeError",
    "SignalingError",
]


class SignalingError(A2alError):
    """Base of the errors of the signaling layer; the message names the hub."""


class HubUnreachable(SignalingError):
    """The hub could not be dialled, or it refused the WebSocket."""


class NoAgent(SignalingError):
    """The hub says that the called agent is not registered there (spec 06 §4.3)."""


class NoPartner(SignalingError):
    """The called agent was told of the call, but nobody joined the room in time."""


class RoomClosed(SignalingError):
    """The hub or the peer ended the room, or what came through it was not a frame."""


class SignalingDecodeError(DecodeError):
    """A message from a hub or through a room is not a signaling frame."""
