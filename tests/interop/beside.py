"""Lab tests that are mostly waiting, side by side: one test function, every case reported by its name."""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Mapping

import trio

__all__ = ["run_beside"]

AT_ONCE = 9
"""Labs that are up at the same time: enough to keep two processors busy, not enough to keep anybody waiting."""
PATIENCE = 60.0


async def run_beside(cases: Mapping[str, Callable[[], Awaitable[None]]], *, at_once: int = AT_ONCE) -> None:
    """Run all cases, `at_once` at a time and each with 60 s; fail with the name and traceback of every one that does.

    A case that fails does not end the others.
    """
    failures: dict[str, BaseException] = {}
    limit = trio.CapacityLimiter(at_once)

    async def run(name: str, case: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            try:
                with trio.fail_after(PATIENCE):
                    await case()
            except Exception as error:
                failures[name] = error

    async with trio.open_nursery() as nursery:
        for name, case in cases.items():
            nursery.start_soon(run, name, case)
    failed = [name for name in cases if name in failures]
    told = [f"{name}:\n{''.join(traceback.format_exception(failures[name]))}" for name in failed]
    assert not failed, "\n".join([f"{len(failed)} of {len(cases)} failed: {', '.join(failed)}", *told])
