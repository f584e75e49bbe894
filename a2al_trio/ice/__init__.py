"""ICE, STUN and TURN: pure agents, and sessions that yield a nominated path as a datagram socket (spec 06 §10-§13)."""

from a2al_trio.ice.agent import AgentConfig
from a2al_trio.ice.driver.network import IceNetwork, SystemNetwork
from a2al_trio.ice.driver.path import IcePath
from a2al_trio.ice.driver.relay import RelaySocket, open_relay
from a2al_trio.ice.driver.session import IceConfig, IceSession, SignalMessage, SignalRoom, open_ice_session
from a2al_trio.ice.errors import IceError, IceFailed, RelayFailed, StunDecodeError
from a2al_trio.ice.servers import HmacCredentials, RestCredentials, StaticCredentials, TurnServer

__all__ = [
    "AgentConfig",
    "HmacCredentials",
    "IceConfig",
    "IceError",
    "IceFailed",
    "IceNetwork",
    "IcePath",
    "IceSession",
    "RelayFailed",
    "RelaySocket",
    "RestCredentials",
    "SignalMessage",
    "SignalRoom",
    "StaticCredentials",
    "StunDecodeError",
    "SystemNetwork",
    "TurnServer",
    "open_ice_session",
    "open_relay",
]
