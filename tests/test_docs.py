"""The documentation is true: its Python runs, its commands take these options, its pages build without warnings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from fastapi import WebSocket

from a2al_trio import Host, HostConfig, Identity, open_host
from a2al_trio.cli import main
from a2al_trio.http import serve_asgi
from tests.host.world import identity
from tests.http.world import open_loopback_hosts

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
Namespace = dict[str, Any]
STRANGER = str(identity(77).address)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


# --- what the Python of each page is put to --------------------------------------------------------------------


@asynccontextmanager
async def open_seed() -> AsyncIterator[tuple[Host, HostConfig]]:
    """A node, and settings for others that join through it."""
    async with open_host(
        Identity.generate(os.urandom), HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1")
    ) as seed:
        yield (
            seed,
            HostConfig(listen="127.0.0.1:0", fallback_host="127.0.0.1", bootstrap=(str(seed.dht_address),)),
        )


async def wait_found(host: Host, who: Identity) -> None:
    while not await host.find_records(who.address):
        await trio.testing.wait_all_tasks_blocked(0.01)


async def use_index(page: Namespace) -> None:
    me = Identity.generate(os.urandom)
    async with open_seed() as (seed, config), trio.open_nursery() as nursery:
        nursery.start_soon(page["serve"], me, config)
        await wait_found(seed, me)
        assert await page["call"](me.address, config) == b"hello"
        nursery.cancel_scope.cancel()


async def use_tutorial(page: Namespace) -> None:
    async def app(scope: Namespace, receive: object, send: Callable[[Namespace], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a page"})

    async with open_loopback_hosts() as (callee, _), trio.open_nursery() as nursery:
        await nursery.start(partial(serve_asgi, callee, app))  # type: ignore[arg-type]
        assert await page["fetch"](str(callee.address), str(callee.dht_address)) == "a page"
        nursery.cancel_scope.cancel()


async def use_http(page: Namespace) -> None:
    @page["app"].websocket("/news")  # type: ignore[untyped-decorator]
    async def news(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("extra, extra")

    async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
        nursery.start_soon(page["serve"], callee)
        assert await page["call"](caller, str(callee.address)) == str(caller.address)
        assert await page["hear"](caller, str(callee.address)) == "extra, extra"
        nursery.cancel_scope.cancel()


async def use_forward(page: Namespace) -> None:
    async def greet(client: trio.SocketStream) -> None:
        await client.send_all(b"hello")
        await client.aclose()

    async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, greet, listeners)
        nursery.start_soon(page["expose"], callee, listeners[0].socket.getsockname()[1])
        [probe] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = probe.socket.getsockname()[1]
        await probe.aclose()
        nursery.start_soon(page["forward"], caller, str(callee.address), port)
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


async def use_access(page: Namespace) -> None:
    async with open_loopback_hosts() as (host, other):
        page["restrict"](host, [other.address], [])
        assert host.access is not None
        assert host.access(host.address, other.address, ())
        assert not host.access(host.address, identity(77).address, ())


async def use_hub(page: Namespace) -> None:
    async with trio.open_nursery() as nursery:
        assert [address.host for address in await page["run_hub"](nursery, 0)] == ["127.0.0.1"]
        nursery.cancel_scope.cancel()


async def only_run(page: Namespace) -> None:
    """The page's code does something by itself."""


USES: dict[str, Callable[[Namespace], Awaitable[None]]] = {
    "index.md": use_index,
    "tutorial.md": use_tutorial,
    "howto/http.md": use_http,
    "howto/forward.md": use_forward,
    "howto/access.md": use_access,
    "howto/hub.md": use_hub,
    "howto/nat.md": only_run,
    "howto/testing.md": only_run,
}


def test_all_python_is_put_to_use() -> None:
    assert {page for page in PAGES if blocks(page, "python")} == set(USES)


@pytest.mark.parametrize("page", USES)
def test_the_python_of_a_page_works(page: str, no_leaks: None) -> None:
    namespace: Namespace = {"__name__": "docs"}
    for block in blocks(page, "python"):
        # Annotations stay what they are, as in a module of one's own: FastAPI reads them.
        exec(compile(block, page, "exec", dont_inherit=True), namespace)

    async def use() -> None:
        with trio.fail_after(30):
            await USES[page](namespace)

    trio.run(use)


# --- commands ---------------------------------------------------------------------------------------------------

COMMANDS = [(page, line) for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_takes_these_options(page: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    words = shlex.split(line.replace("FILE", str(file)).replace("AID", STRANGER))
    assert words[0] == "a2al-trio"
    command = main.commands[words[1]]
    with command.make_context(words[1], words[2:], parent=click.Context(main)):
        pass


def test_shells_complete_commands() -> None:
    [line] = [block.strip() for page in PAGES for block in blocks(page, "bash")]
    assert line == 'eval "$(_A2AL_TRIO_COMPLETE=bash_source a2al-trio)"'
    answer = subprocess.run(
        [sys.executable, "-c", "from a2al_trio.cli import main; main(prog_name='a2al-trio')"],
        env={**os.environ, "_A2AL_TRIO_COMPLETE": "bash_complete", "COMP_WORDS": "a2al-trio forw", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "plain,forward\n"


# --- pages ------------------------------------------------------------------------------------------------------


def test_pages_build_without_warnings(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert (tmp_path / "howto" / "http.html").exists()
