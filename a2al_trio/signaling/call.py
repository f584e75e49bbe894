"""Calling an agent through the hubs its record names (spec 06 §8), and connecting to a hub ahead of the call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from a2al_trio.errors import AttemptFailure, ConnectError
from a2al_trio.scopes import Attempt, open_service_nursery, race
from a2al_trio.signaling.channel import Room, Trickle, open_room
from a2al_trio.signaling.errors import NoAgent, NoPartner, SignalingError
from a2al_trio.signaling.urls import caller_url
from a2al_trio.signaling.websocket import DIAL_ERRORS, Dialer, dial_tcp, hub_endpoint

__all__ = ["HUB_STAGGER", "PARTNER_LIMIT", "open_call", "open_prepared_dial"]

PARTNER_LIMIT: Final = 8.0
"""Seconds a caller waits for the callee's first frame before it gives up on a hub (spec 06 D9)."""
HUB_STAGGER: Final = 1.0
"""Seconds a hub has to bring the callee before the next one is tried beside it."""

_NO_AGENT_TRIES: Final = 3
_NO_AGENT_PAUSE: Final = 3.0


@attrs.define(eq=False)
class _Standing:
    """A room in which the callee was heard; it stands until `scope` is cancelled."""

    room: Room
    scope: trio.CancelScope


@asynccontextmanager
async def open_call(
    hubs: Sequence[str],
    *,
    local: str,
    remote: str,
    credentials: tuple[str, str],
    trickle: Trickle | None = None,
    dial: Dialer = dial_tcp,
) -> AsyncIterator[Room]:
    """Call agent `remote` as agent `local` over the first of `hubs` where it answers (spec 06 §8, spec 08 §5.3).

    A hub that has not brought the callee within a second, or has failed, is joined by the next; callees take such a
    call for one, and answer at the hub they heard of it first. Our ICE `credentials` (ufrag, pwd) are sent to each at
    once, and `trickle` is run for each to send our candidates; the block is entered when the peer's first frame is
    there. An agent that is not registered is called again twice, 3 s apart. Raises `NoAgent` if no hub knows the agent,
    the hub's own error if there is only one, else `ConnectError` naming each hub.
    """

    def attempt(hub: str) -> Attempt[_Standing]:
        def join() -> AbstractAsyncContextManager[Room]:
            url = caller_url(hub, local=local, remote=remote)
            return open_room(url, hub, credentials=credentials, trickle=trickle, dial=dial)

        async def run() -> _Standing:
            standing: _Standing = await nursery.start(_hold_room, join, f"{remote} was called but did not join")
            return standing

        return Attempt(f"hub {hub}", run)

    if not hubs:
        raise ConnectError(f"cannot call {remote}: its record names no hub")
    async with open_service_nursery("call") as nursery:
        try:
            standing = await race([attempt(hub) for hub in hubs], stagger=HUB_STAGGER, discard=_leave)
        except ConnectError as error:
            raise _call_failed(remote, error.attempts) from error
        yield standing.room


async def _hold_room(
    join: Callable[[], AbstractAsyncContextManager[Room]], silence: str, task_status: trio.TaskStatus[_Standing]
) -> None:
    """Enter a room and stay; started when the callee was heard there."""
    with trio.CancelScope() as scope:
        async with AsyncExitStack() as stack:
            room = await _call_hub(stack, join, silence)
            task_status.started(_Standing(room, scope))
            await trio.sleep_forever()


def _leave(standing: _Standing) -> None:
    standing.scope.cancel()


async def _call_hub(stack: AsyncExitStack, join: Callable[[], AbstractAsyncContextManager[Room]], silence: str) -> Room:
    for left in reversed(range(_NO_AGENT_TRIES)):
        async with AsyncExitStack() as attempt:
            try:
                room = await attempt.enter_async_context(join())
                with trio.move_on_after(PARTNER_LIMIT) as limit:
                    await room.wait_for_partner()
                if limit.cancelled_caught:
                    raise NoPartner(f"{silence} within {PARTNER_LIMIT:.0f} s")
            except NoAgent:
                if not left:
                    raise
            else:
                await stack.enter_async_context(attempt.pop_all())
                return room
        await trio.sleep(_NO_AGENT_PAUSE)
    raise AssertionError("the last try returns or raises")


def _call_failed(remote: str, failures: Sequence[AttemptFailure]) -> Exception:
    errors = [failure.error for failure in failures]
    if all(isinstance(error, NoAgent) for error in errors):
        return NoAgent(f"{remote} is registered at none of {', '.join(f.name for f in failures)}")
    if len(errors) == 1 and isinstance(errors[0], SignalingError):
        return errors[0]
    return ConnectError(f"cannot call {remote}", tuple(failures))


@asynccontextmanager
async def open_prepared_dial(hub: str, dial: Dialer) -> AsyncIterator[Dialer]:
    """Begin to connect to `hub` before there is anything to say, and give a dialler that uses that connection once.

    A connection that failed is reported to the first who dials there; one that nobody used is closed. Raises
    `ConfigurationError` for a URL that is no hub.
    """
    endpoint = hub_endpoint(hub)
    stream: trio.abc.Stream | None = None
    error: BaseException | None = None
    tried = trio.Event()
    is_free = True

    async def connect() -> None:
        nonlocal stream, error
        try:
            stream = await dial(*endpoint)
        except DIAL_ERRORS as failure:
            error = failure
        tried.set()

    async def prepared(host: str, port: int, tls: bool) -> trio.abc.Stream:
        nonlocal stream, is_free
        if (host, port, tls) != endpoint or not is_free:
            return await dial(host, port, tls)
        is_free = False
        await tried.wait()
        if error is not None:
            raise error
        assert stream is not None
        taken, stream = stream, None
        return taken

    try:
        async with open_service_nursery("prepared connection to a hub") as nursery:
            nursery.start_soon(connect)
            yield prepared
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)
