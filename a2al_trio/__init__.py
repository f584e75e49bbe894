"""A2AL for Trio: agents dialled by cryptographic address over mutually authenticated QUIC.

`open_host` runs everything a program needs to be an agent among others; the packages below it (`quic`, `dht`,
`ice`, `signaling`, `wire`, `identity`) can each be used alone.
"""

from a2al_trio.errors import (
    A2alError,
    AttemptFailure,
    CloseCause,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DecodeError,
    IdentityMismatch,
    LocalProtocolError,
    NoRoute,
    ProtocolError,
    RecordInvalid,
    RecordNotFound,
    Refused,
    RemoteProtocolError,
    ResolveError,
    ServiceCrashed,
    StreamReset,
    StreamStopped,
)
from a2al_trio.host import AgentConnection, EndpointRecord, Host, HostConfig, open_host
from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.identity.files import load_identity, load_or_create_identity
from a2al_trio.net.address import SocketAddress

__all__ = [
    "A2alError",
    "Address",
    "AgentConnection",
    "AttemptFailure",
    "CloseCause",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLost",
    "DecodeError",
    "EndpointRecord",
    "Host",
    "HostConfig",
    "Identity",
    "IdentityMismatch",
    "LocalProtocolError",
    "NoRoute",
    "NodeId",
    "ProtocolError",
    "RecordInvalid",
    "RecordNotFound",
    "Refused",
    "RemoteProtocolError",
    "ResolveError",
    "ServiceCrashed",
    "SocketAddress",
    "StreamReset",
    "StreamStopped",
    "load_identity",
    "load_or_create_identity",
    "open_host",
]
