"""Ctrl-C while a command is still being loaded. This module itself loads next to nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["SIGNAL_BASE", "interrupted_quietly"]

SIGNAL_BASE = 128
"""A command that a signal ended says so as a shell does: 130 for SIGINT, 143 for SIGTERM."""


@contextmanager
def interrupted_quietly() -> Iterator[None]:
    """For the length of a block that only imports: let SIGINT end the process at once, without a word.

    KeyboardInterrupt would not do: in the import system's own callbacks it is printed and lost. Does nothing where
    SIGINT is ignored, as in a shell's background jobs, or is the affair of the program that called us.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(SIGNAL_BASE + signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
