"""Something a core has begun and will finish later: the bridge between commands and whoever waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Operation"]

T = TypeVar("T")


class Operation(Generic[T]):
    """The outcome of a command, now or later: a result or an error, once.

    Callbacks run when it is finished, at once if it is already. When the last one waiting gives up, the
    operation is `abandoned`, and its owner may stop the work behind it.
    """

    def __init__(self, on_abandoned: Callable[[], None] | None = None) -> None:
        self.done = False
        self.error: Exception | None = None
        self._result: T | None = None
        self._callbacks: list[Callable[[Operation[T]], None]] = []
        self._on_abandoned = on_abandoned

    def when_done(self, callback: Callable[[Operation[T]], None]) -> None:
        """Call back once finished."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def give_up(self, callback: Callable[[Operation[T]], None]) -> None:
        """Stop waiting; the last one to do so abandons the operation."""
        if callback not in self._callbacks:
            return
        self._callbacks.remove(callback)
        if not self._callbacks and self._on_abandoned is not None:
            self._on_abandoned()

    def finish(self, result: T) -> None:
        """Give the result; later calls change nothing."""
        if not self.done:
            self._result = result
            self._end()

    def fail(self, error: Exception) -> None:
        """Give the error instead."""
        if not self.done:
            self.error = error
            self._end()

    def _end(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def value(self) -> T:
        """The result; raises the error. Only valid once done."""
        if not self.done:
            raise RuntimeError("the operation is not finished")
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # set by finish()
