"""Noticing that the network has changed: settling, flapping, and real interfaces in a namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Hashable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.nat import watch as watch_module
from a2al_trio.nat.changes import FLAP_WINDOW, SETTLE, SETTLE_FLAPPING, ChangeDetector
from a2al_trio.nat.watch import network_fingerprint, open_network_watch, outbound_hosts
from tests.interop.private_network import private_network, why_not


def test_a_change_counts_once_it_has_lasted() -> None:
    detector = ChangeDetector("home")
    assert not detector.sample("cafe", 0)
    assert detector.due == SETTLE
    assert not detector.sample("cafe", 4.9)
    assert detector.sample("cafe", 5)
    assert detector.due is None
    assert not detector.sample("cafe", 6)


def test_what_comes_back_has_not_changed() -> None:
    detector = ChangeDetector("home")
    detector.sample(None, 0)
    assert not detector.sample("home", 3)
    assert detector.due is None


def test_another_change_starts_the_wait_anew() -> None:
    detector = ChangeDetector("home")
    detector.sample("tunnel", 0)
    assert not detector.sample("cafe", 4)
    assert not detector.sample("cafe", 8)
    assert detector.sample("cafe", 9)


def test_a_flapping_network_must_settle_longer() -> None:
    detector = ChangeDetector(0)
    now = 0.0
    for number in (1, 2, 3):
        detector.sample(number, now)
        now += SETTLE
        assert detector.sample(number, now)
    assert detector.is_flapping(now)
    detector.sample(4, now)
    assert detector.due == now + SETTLE_FLAPPING
    assert not detector.is_flapping(now + FLAP_WINDOW)


@given(st.lists(st.tuples(st.floats(0, 60), st.sampled_from("abc"))))
def test_only_what_lasts_is_confirmed(samples: list[tuple[float, str]]) -> None:
    detector = ChangeDetector("a")
    now, since, last, confirmed = 0.0, 0.0, "a", "a"
    for pause, network in samples:
        now += pause
        if network != last:
            since, last = now, network
        if detector.sample(network, now):
            assert network != confirmed
            assert now - since >= SETTLE
            confirmed = network
    assert detector.confirmed == confirmed


@pytest.mark.parametrize("hints", [True, False])
async def test_the_watch_samples_and_tells(
    hints: bool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hints:
        monkeypatch.setattr(watch_module, "_open_netlink", lambda: contextlib.nullcontext(None))
    network: Hashable = "home"
    changed: list[float] = []
    async with open_network_watch(lambda: changed.append(trio.current_time()), sample=lambda: network):
        await trio.sleep(25)
        network = "cafe"
        await trio.sleep(25)
        assert changed == ([] if hints else [35]), "without a hint from the system nobody looks"


def test_the_fingerprint_is_stable() -> None:
    assert network_fingerprint() == network_fingerprint()
    assert len(outbound_hosts()) <= 2


@pytest.mark.interop
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "can")
def test_linux_tells_of_a_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2al_trio.nat.changes.SETTLE", 0.05)

    async def main() -> None:
        changed = trio.Event()
        async with open_network_watch(changed.set):
            await trio.testing.wait_all_tasks_blocked()
            subprocess.run(["ip", "addr", "add", "203.0.113.5/32", "dev", "lo"], check=True)  # noqa: ASYNC221
            with trio.fail_after(5):
                await changed.wait()

    with private_network():
        trio.run(main)
