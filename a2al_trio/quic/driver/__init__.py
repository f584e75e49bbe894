"""The Trio side of QUIC: endpoints, connections and streams over the pure core."""

from __future__ import annotations

__all__: list[str] = []
