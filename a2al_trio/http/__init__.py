"""Agents and the services people already run: TCP forwarding over agent streams."""

from a2al_trio.http.tcp import bridge, serve_tcp

__all__ = ["bridge", "serve_tcp"]
