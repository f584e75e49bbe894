"""What this package costs, measured: one module per benchmark, see `python -m benchmarks`."""

from __future__ import annotations

__all__: list[str] = []
