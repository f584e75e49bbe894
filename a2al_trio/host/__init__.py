"""The host: agents of this process, publishing, resolving, connecting and accepting."""

from a2al_trio.host.config import ALPN, CONNECT_STAGGER, ICE_STAGGER, HostConfig
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.host import EndpointRecord, Host, open_host, open_host_over

__all__ = [
    "ALPN",
    "CONNECT_STAGGER",
    "ICE_STAGGER",
    "AgentConnection",
    "EndpointRecord",
    "Host",
    "HostConfig",
    "open_host",
    "open_host_over",
]
