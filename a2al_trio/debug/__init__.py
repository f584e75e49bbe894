"""Looking into a running host: JSON under `/debug` and a live page, as an ASGI app or served alone."""

from a2al_trio.debug.app import debug_app
from a2al_trio.debug.server import serve_debug

__all__ = ["debug_app", "serve_debug"]
