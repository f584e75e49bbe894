"""Agents and the services people already run: HTTP to an agent and from one, TCP forwarding, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from a2al_trio.errors import ConfigurationError
from a2al_trio.http.asgi import Application, ApplicationFailed
from a2al_trio.http.server import serve_asgi
from a2al_trio.http.tcp import bridge, forward_tcp, serve_tcp

if TYPE_CHECKING:
    import httpx

    from a2al_trio.host import Host
    from a2al_trio.identity import Address

__all__ = ["Application", "ApplicationFailed", "bridge", "forward_tcp", "http_client", "serve_asgi", "serve_tcp"]


def http_client(
    host: Host,
    *,
    local: Address | None = None,
    token: str = "",
    **settings: Any,  # noqa: ANN401 - httpx checks them
) -> httpx.AsyncClient:
    """An httpx client that calls agents: `await client.get("a2al://AID/path")`.

    Connections are the host's pooled ones and outlive the client; a request whose pooled connection proves dead is
    repeated once if it may be. `local` is the agent that calls, the default one unless given; `token` is a ticket
    for agents that ask for one. `settings` are httpx's own; unlike httpx's the client has no time limits unless
    given `timeout`. What an agent cannot be reached for is the cause of `httpx.ConnectError`.

    Needs httpx (`pip install 'a2al-trio[http]'`); raises ConfigurationError without.
    """
    try:
        import httpx

        from a2al_trio.http.client import AgentTransport
    except ImportError as error:
        raise ConfigurationError("http_client needs httpx: pip install 'a2al-trio[http]'") from error
    settings.setdefault("timeout", None)
    return httpx.AsyncClient(transport=AgentTransport(host, local=local, token=token), trust_env=False, **settings)
