"""Meeting through a hub: frames, rooms, the client side and the hub itself (spec 06 §2-§9, spec 08 §5)."""

from a2al_trio.signaling.call import open_call, open_prepared_dial
from a2al_trio.signaling.channel import Room
from a2al_trio.signaling.client import CallHandler, IncomingCall, Signaling, open_signaling
from a2al_trio.signaling.errors import (
    HubUnreachable,
    NoAgent,
    NoPartner,
    RoomClosed,
    SignalingDecodeError,
    SignalingError,
)
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame, encode_frame
from a2al_trio.signaling.hub import Hub, serve_hub
from a2al_trio.signaling.registration import prove_registration
from a2al_trio.signaling.room import room_id
from a2al_trio.signaling.rooms import HubLimits, HubStats
from a2al_trio.signaling.urls import hub_from_bootstrap
from a2al_trio.signaling.websocket import Dialer

__all__ = [
    "CallHandler",
    "Dialer",
    "Frame",
    "FrameType",
    "Hub",
    "HubLimits",
    "HubStats",
    "HubUnreachable",
    "IncomingCall",
    "NoAgent",
    "NoPartner",
    "Room",
    "RoomClosed",
    "Signaling",
    "SignalingDecodeError",
    "SignalingError",
    "decode_frame",
    "encode_frame",
    "hub_from_bootstrap",
    "open_call",
    "open_prepared_dial",
    "open_signaling",
    "prove_registration",
    "room_id",
    "serve_hub",
]
