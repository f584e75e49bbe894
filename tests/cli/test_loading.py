"""Ctrl-C before a command has begun, at moments chosen by the module that is being loaded."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from a2al_trio.cli.loading import interrupted_quietly

ROOT = Path(__file__).parents[2]

INTERRUPTED = """
import signal, sys, weakref
from a2al_trio.cli import main

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            doomed = set()
            # From a callback, as the import system has them: an exception raised there would be printed and lost.
            noticed = weakref.ref(doomed, lambda _: signal.raise_signal(signal.SIGINT))
            del doomed

handler, moment, *arguments = sys.argv[1:]
if handler == "ignored":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.meta_path.insert(0, Interrupt())
sys.argv[:] = ["a2al-trio", *arguments]
main()
"""


def interrupt(handler: str, moment: str, *arguments: str) -> tuple[int, str]:
    """Run a command that is interrupted when it loads a module; returns exit code and output."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, handler, moment, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("moment", ["click", "trio", "a2al_trio.cli.node", "a2al_trio.host.host"])
def test_an_interrupt_while_a_command_is_loaded_is_a_quiet_end(moment: str) -> None:
    assert interrupt("default", moment, "node") == (130, "")


def test_an_interrupt_that_is_ignored_remains_so() -> None:
    code, said = interrupt("ignored", "click", "id", "--help")
    assert code == 0
    assert said.startswith("Usage: a2al-trio id")


def test_the_handler_is_there_only_while_something_is_loaded() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupted_quietly():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with interrupted_quietly():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_threads_cannot_handle_signals() -> None:
    said: list[object] = []

    def load() -> None:
        with interrupted_quietly():
            said.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()
    assert said == [signal.default_int_handler]
