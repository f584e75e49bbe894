"""The `/debug` pages on a real port, and in a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from a2al_trio.debug import serve_debug
from a2al_trio.errors import ConfigurationError
from a2al_trio.host import Host, HostConfig, open_host
from a2al_trio.identity import Identity
from a2al_trio.net.address import SocketAddress
from tests.interop.private_network import private_network, why_not

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[Host, Host]]:
    config = HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    async with (
        open_host(Identity.generate(os.urandom), config) as one,
        open_host(Identity.generate(os.urandom), config, bootstrap=[str(one.dht_address)]) as two,
    ):
        await two.dht.bootstrapped()
        yield one, two


@pytest.mark.usefixtures("no_leaks")
async def test_served_on_loopback_until_cancelled() -> None:
    async with two_hosts() as (_, host), trio.open_nursery() as nursery:
        address: SocketAddress = await nursery.start(serve_debug, host)
        assert address.host == "127.0.0.1"
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as browser:
            answer = await browser.get("/debug/host")
            assert answer.json()["address"] == str(host.address)
            assert (await browser.get("/debug/host", headers={"Host": "evil.example"})).status_code == 421
        nursery.cancel_scope.cancel()


async def test_addresses_that_cannot_be_are_named() -> None:
    async with two_hosts() as (_, host):
        with pytest.raises(ConfigurationError, match="not loopback"):
            await serve_debug(host, "0.0.0.0:0")
        with pytest.raises(ConfigurationError, match=r"write IP:port"):
            await serve_debug(host, "localhost")
        taken = trio.socket.socket()
        with taken:
            await taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ConfigurationError, match="cannot listen on"):
                await serve_debug(host, f"127.0.0.1:{taken.getsockname()[1]}")


async def test_served_anywhere_if_told() -> None:
    async with two_hosts() as (_, host), trio.open_nursery() as nursery:
        address: SocketAddress = await nursery.start(_serve_anywhere, host)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address.port}", trust_env=False) as browser:
            assert (await browser.get("/debug/host", headers={"Host": "node.example"})).status_code == 200
        nursery.cancel_scope.cancel()


async def _serve_anywhere(host: Host, *, task_status: trio.TaskStatus[SocketAddress]) -> None:
    await serve_debug(host, "0.0.0.0:0", anywhere=True, task_status=task_status)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[list[str]]:
    """The command of a headless browser, inside a network without a way out."""
    if reason := why_not():
        pytest.skip(reason)
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("no headless browser: apt-get install chromium-headless-shell")
    with private_network("20.0.1.1"):
        yield [
            found,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=5000",
            "--dump-dom",
        ]


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.interop
async def test_the_page_lives_in_a_browser(browser: list[str]) -> None:
    async with two_hosts() as (one, two), trio.open_nursery() as nursery:
        await two.publish()
        address: SocketAddress = await nursery.start(serve_debug, two)
        async with two.connect(one.address, at=one.quic_address):
            # Started by this very thread, which is in the private network; Trio's own helper uses others.
            process = start([*browser, f"http://{address}/debug/"])
            page, _ = await trio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0
        assert "live, " in page
        for text in (str(two.address), str(two.quic_address), f"direct {one.quic_address}", "by us"):
            assert text in page
        for heading in ('Connections <span id="connection-count">1</span>', '<span id="peer-count">1</span>'):
            assert heading in page
        nursery.cancel_scope.cancel()
