"""A2AL for Trio: agents dialled by cryptographic address over mutually authenticated QUIC.

`open_host` runs everything a program needs to be an agent among others; the packages below it (`quic`, `dht`,
`ice`, `signaling`, `wire`, `identity`) can each be used alone.

The names below are loaded when they are first asked for (PEP 562), so that who uses one package pays for no other.
"""

TYPE_CHECKING = False  # as `typing` has it, which would have to be loaded
if TYPE_CHECKING:
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

_HOMES = ("errors", "net.address", "identity", "identity.files", "host")
"""Where the names come from, lowest layer first: looking for one loads nothing above it."""

if not TYPE_CHECKING:  # to a type checker this module has no names but the ones above

    def __getattr__(name: str) -> object:
        if name in __all__:
            import importlib

            for home in _HOMES:
                module = importlib.import_module(f"a2al_trio.{home}")
                if name in module.__all__:
                    globals()[name] = found = getattr(module, name)
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
