"""Cases side by side: all of them run, and each that fails is named."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.interop.beside import PATIENCE, run_beside


async def test_every_failure_is_named_and_none_ends_the_others(autojump_clock: trio.testing.MockClock) -> None:
    finished: list[str] = []

    async def good() -> None:
        await trio.sleep(10)
        finished.append("good")

    async def bad() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 20)
            raise ValueError("its reason")

    cases = {"bad": bad, "good": good, "endless": trio.sleep_forever}
    with pytest.raises(AssertionError, match=r"(?s)2 of 3 failed: bad, endless.*its reason.*TooSlowError"):
        await run_beside(cases, at_once=1)
    assert finished == ["good"]
    assert trio.current_time() >= PATIENCE


async def test_no_more_run_than_allowed(autojump_clock: trio.testing.MockClock) -> None:
    began = trio.current_time()

    async def wait() -> None:
        await trio.sleep(10)

    await run_beside({str(number): wait for number in range(6)}, at_once=2)
    assert trio.current_time() - began == pytest.approx(30)
