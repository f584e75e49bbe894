"""Commands under Trio: how they are told to stop, and what becomes of their errors."""

from __future__ import annotations

import functools
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import click
import trio

from a2al_trio.cli.loading import SIGNAL_BASE
from a2al_trio.errors import A2alError, ConfigurationError

__all__ = ["explained", "run_async"]

P = ParamSpec("P")
logger = logging.getLogger(__name__)


class _WrongSettings(click.ClickException):
    """What the user has to set right, with click's own exit code for wrong options."""

    exit_code = 2


def run_async(command: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async command under Trio until it ends or SIGINT or SIGTERM tells it to end in order."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        told = trio.run(
            _until_told, functools.partial(command, *args, **kwargs), restrict_keyboard_interrupt_to_checkpoints=True
        )
        if told:
            raise click.exceptions.Exit(SIGNAL_BASE + told)

    return run


async def _until_told(command: Callable[[], Awaitable[None]]) -> int:
    told = 0

    async def watch(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal told
        # Only the first is ours: who asks twice wants an end at once, in order or not.
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            told = await anext(signals)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        await command()
        nursery.cancel_scope.cancel()
    return told


@contextmanager
def explained() -> Iterator[None]:
    """What the user, the network or the file system did wrong becomes a line, an interrupt a quiet end."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(SIGNAL_BASE + signal.SIGINT) from None
    except BrokenPipeError:
        raise  # who reads our output has heard enough; click ends quietly
    except (A2alError, OSError) as error:
        raise _explain([error]) from error
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            raise click.exceptions.Exit(SIGNAL_BASE + signal.SIGINT) from None
        if all(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            raise leaves[0] from None
        if all(isinstance(leaf, A2alError | OSError) for leaf in leaves):
            raise _explain(leaves) from group
        raise


def _explain(errors: list[BaseException]) -> click.ClickException:
    for error in errors:
        logger.debug("what went wrong", exc_info=error)
    kind = _WrongSettings if any(isinstance(error, ConfigurationError) for error in errors) else click.ClickException
    return kind("; ".join(dict.fromkeys(_text(error) for error in errors)))


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
