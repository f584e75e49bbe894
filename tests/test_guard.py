"""The guard that keeps every test on this machine is itself tested."""

from __future__ import annotations

import socket

import pytest

import tests.conftest as guard

ELSEWHERE = ("192.0.2.1", 9)


@pytest.mark.parametrize("marked", [pytest.param(True, marks=pytest.mark.interop), False])
def test_sending_off_loopback_is_caught_outside_a_lab(marked: bool) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(PermissionError):
        sock.sendto(b"x", ELSEWHERE)
    assert guard._strays == [f"socket.sendto to {ELSEWHERE}"]
    guard._strays.clear()


def test_connecting_off_loopback_is_caught() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock, pytest.raises(PermissionError):
        sock.connect(ELSEWHERE)
    guard._strays.clear()


def test_loopback_is_free() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))
    assert not guard._strays
