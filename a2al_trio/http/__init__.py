"""Agents and the web: HTTP to an agent and from one, and files.

What most programs need of it are methods of the host: `Host.http_client` and `Host.serve_asgi`.
"""

from a2al_trio.http.asgi import Application, ApplicationFailed

__all__ = ["Application", "ApplicationFailed"]
