"""The two processes of a network benchmark, once per contender."""

from __future__ import annotations

__all__: list[str] = []
