"""What the drivers of golden vector files are written with.

A driver is `tests/vectors/drivers/<file stem>.py` with `def cases(document: Document) -> Iterator[Case]`: one case per
list element of the file (record_store: one per step), each of which agrees with the reference, names its deviation, or
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from a2al_trio.errors import DecodeError
from tests.vectors.deviations import Deviation, Direction

__all__ = ["Agreement", "Case", "Document", "agree", "unhex"]

Document = Mapping[str, Any]
T = TypeVar("T")


@attrs.frozen
class Case:
    """One case: `run` raises when we differ, and returns the named deviations it met (usually none)."""

    section: str
    label: str
    run: Callable[[], Iterable[Deviation]]


@attrs.frozen
class Agreement(Generic[T]):
    """How one outcome compared: `accepted` when both sides did, then `value` is ours."""

    accepted: bool
    value: T | None
    deviations: tuple[Deviation, ...] = ()


def agree(
    expected: Mapping[str, Any],
    action: Callable[[], T],
    *,
    refusals: type[Exception] | tuple[type[Exception], ...] = DecodeError,
    excuse: Callable[[], Deviation | None] = lambda: None,
) -> Agreement[T]:
    """Compare our outcome with the reference's `ok`.

    `action` accepts by returning and refuses by raising one of `refusals`; any other exception fails the case. Where
    the two differ, `excuse` must name a deviation that points the right way.
    """
    error: Exception | None = None
    value: T | None = None
    try:
        value = action()
    except refusals as refusal:
        error = refusal
    if (error is None) == expected["ok"]:
        return Agreement(error is None, value)
    direction = Direction.LAXER if error is None else Direction.STRICTER
    deviation = excuse()
    if deviation is None or deviation.direction is not direction:
        ours = "accepted" if error is None else f"refused ({type(error).__name__}: {error})"
        theirs = "accepts" if expected["ok"] else f"refuses ({expected.get('error_class')}: {expected.get('error')})"
        raise AssertionError(f"{ours}, the reference {theirs}")
    return Agreement(False, None, (deviation,))


def unhex(text: str | None) -> bytes | None:
    """Read a byte string of a vector file; `null` stays None."""
    return None if text is None else bytes.fromhex(text)
