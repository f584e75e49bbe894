"""The service nursery and the race, in virtual time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from a2al_trio.errors import ConnectError, ServiceCrashed
from a2al_trio.scopes import Attempt, open_service_nursery, race


async def test_background_tasks_outlive_a_cancelled_body(autojump_clock: trio.testing.MockClock) -> None:
    log: list[str] = []
    replies, replies_in = trio.open_memory_channel[str](0)
    requests_in, requests = trio.open_memory_channel[str](0)

    async def peer() -> None:
        async for request in requests:
            await replies.send(f"re {request}")

    with trio.move_on_after(1):
        async with open_service_nursery("peer") as nursery:
            nursery.start_soon(peer)
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(0.5, shield=True):
                    await requests_in.send("bye")
                    log.append(await replies_in.receive())
    assert log == ["re bye"]
    assert trio.current_time() == 1


async def test_an_error_of_the_body_surfaces_bare() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with open_service_nursery("service") as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise KeyError("mine")


async def test_a_crashed_background_task_cancels_the_body_and_is_named() -> None:
    async def crash() -> None:
        raise ValueError("broken")

    with pytest.raises(ServiceCrashed, match="resolver crashed: ValueError: broken") as caught:
        async with open_service_nursery("resolver") as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)


async def test_a_crash_under_an_error_of_the_body_keeps_both() -> None:
    async def crash() -> None:
        raise ValueError("broken")

    with pytest.raises(ServiceCrashed) as caught:
        async with open_service_nursery("resolver") as nursery:
            nursery.start_soon(crash)
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("cannot go on")
    assert caught.value.__notes__ == ["meanwhile the body raised KeyError: 'cannot go on'"]


async def test_keyboard_interrupt_stays_itself() -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with open_service_nursery("service") as nursery:
            nursery.start_soon(interrupt)
            await trio.sleep_forever()


async def test_nested_services_end_top_down(autojump_clock: trio.testing.MockClock) -> None:
    ended: list[str] = []

    async def run(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async with open_service_nursery("lower") as lower:
        lower.start_soon(run, "lower")
        async with open_service_nursery("upper") as upper:
            upper.start_soon(run, "upper")
            await trio.sleep(1)
    assert ended == ["upper", "lower"]


def attempt(name: str, after: float, error: Exception | None = None, log: list[float] | None = None) -> Attempt[str]:
    async def run() -> str:
        if log is not None:
            log.append(trio.current_time())
        await trio.sleep(after)
        if error is not None:
            raise error
        return name

    return Attempt(name, run)


async def test_race_staggers_and_the_first_success_wins(autojump_clock: trio.testing.MockClock) -> None:
    started: list[float] = []
    ways = [attempt("slow", 10, log=started), attempt("quick", 0.1, log=started), attempt("late", 1, log=started)]
    assert await race(ways, stagger=0.25, discard=lambda _: None) == "quick"
    assert started == [0, 0.25]
    assert trio.current_time() == pytest.approx(0.35)


async def test_race_starts_the_next_as_soon_as_one_fails(autojump_clock: trio.testing.MockClock) -> None:
    started: list[float] = []
    ways = [attempt("a", 0.1, OSError("no"), started), attempt("b", 0, OSError("nor"), started), attempt("c", 1)]
    assert await race(ways, stagger=5, discard=lambda _: None) == "c"
    assert started == [0, 0.1]
    assert trio.current_time() == pytest.approx(1.1)


async def test_race_names_every_failure(autojump_clock: trio.testing.MockClock) -> None:
    ways = [attempt("v6", 2, OSError("unreachable")), attempt("v4", 0.1, ConnectError("refused"))]
    with pytest.raises(ConnectError, match="cannot meet: v6: unreachable; v4: refused") as caught:
        await race(ways, stagger=0.25, discard=lambda _: None, goal="meet")
    assert [failure.name for failure in caught.value.attempts] == ["v6", "v4"]


async def test_two_wins_of_one_tick_leave_one_to_discard(autojump_clock: trio.testing.MockClock) -> None:
    go = trio.Event()
    discarded: list[str] = []

    def way(name: str) -> Attempt[str]:
        async def run() -> str:
            await go.wait()
            return name

        return Attempt(name, run)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set_at, go, 1)
        won = await race([way("a"), way("b")], stagger=0, discard=discarded.append)
    assert {won, *discarded} == {"a", "b"}
    assert len(discarded) == 1


async def _set_at(event: trio.Event, when: float) -> None:
    await trio.sleep_until(when)
    event.set()


async def test_a_win_beside_a_bug_is_discarded(autojump_clock: trio.testing.MockClock) -> None:
    discarded: list[str] = []

    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return "late"

    with pytest.raises(ZeroDivisionError):
        await race(
            [Attempt("stubborn", stubborn), attempt("bug", 1, ZeroDivisionError())], stagger=0, discard=discarded.append
        )
    assert discarded == ["late"]


async def test_a_cancelled_race_returns_nothing(autojump_clock: trio.testing.MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await race([attempt("slow", 2), attempt("slower", 3)], stagger=0.1, discard=lambda _: None)
    assert scope.cancelled_caught
    assert trio.current_time() == 1


async def test_a_bug_in_an_attempt_propagates() -> None:
    with pytest.raises(ZeroDivisionError):
        await race([attempt("a", 0, ZeroDivisionError())], stagger=1, discard=lambda _: None)


async def test_nothing_to_try_is_said() -> None:
    empty: list[Attempt[str]] = []
    with pytest.raises(ConnectError, match="nothing to try"):
        await race(empty, stagger=1, discard=lambda _: None)
