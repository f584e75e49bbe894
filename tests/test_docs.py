"""The documentation is true: its Python runs, its commands take these options, its pages build without warnings."""

from __future__ import annotations

import configparser
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
import trio
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi import WebSocket

import a2al_trio
from a2al_trio import Host, HostConfig, Identity, open_host
from a2al_trio.cli.commands import commands, load_command
from a2al_trio.h3 import RequestHead, open_h3_client
from a2al_trio.host import load_config
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import ClientTls, open_quic, pinned
from tests.host.world import identity
from tests.http.world import open_loopback_hosts
from tests.quic.driver.support import two_connections
from tests.quic.tls_support import credentials
from tests.test_readme import authority_and_leaf

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


async def page_app(scope: Namespace, receive: object, send: Callable[[Namespace], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"a page"})


async def use_tutorial(page: Namespace) -> None:
    async with open_loopback_hosts() as (callee, _), trio.open_nursery() as nursery:
        await nursery.start(partial(callee.serve_asgi, page_app))  # type: ignore[arg-type]
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
    async with open_loopback_hosts() as (callee, _), trio.open_nursery() as nursery:
        web = credentials("p256", "agent.test")
        chain = b"".join(ssl.DER_cert_to_PEM_cert(certificate).encode() for certificate in web.chain)
        key = web.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        await page["serve_web"](nursery, callee, "agent.test", chain, key)
        async with open_udp(SocketAddress("127.0.0.1", 0)) as socket, open_quic(socket) as stranger:
            tls = ClientTls(alpn=("h3",), verify_peer=pinned(*web.chain))
            connection = await stranger.connect(callee.quic_address, tls=tls, server_name="agent.test")
            async with (
                open_h3_client(connection) as client,
                await client.request(RequestHead(b"GET", b"agent.test", b"/who"), end=True) as exchange,
            ):
                assert (await exchange.receive_response()).status == 200
                assert await exchange.receive_all(limit=100) == b'"None"'
        nursery.cancel_scope.cancel()


async def use_mcp(page: Namespace) -> None:
    async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
        nursery.start_soon(page["serve"], callee)
        assert await page["call"](caller, str(callee.address)) == str(caller.address)
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
    with tempfile.TemporaryDirectory() as name:
        inbox, file = trio.Path(name) / "inbox", trio.Path(name) / "file"
        await inbox.mkdir()
        await file.write_bytes(b"content")
        async with open_loopback_hosts() as (callee, caller), trio.open_nursery() as nursery:
            await nursery.start(callee.serve, lambda connection: page["take"](connection, Path(inbox)))
            assert await page["give"](caller, str(callee.address), Path(file)) == "file"
            nursery.cancel_scope.cancel()


async def use_access(page: Namespace) -> None:
    async with open_loopback_hosts() as (host, other), trio.open_nursery() as nursery:
        page["restrict"](host, [other.address], [])
        assert host.access is not None
        assert host.access(host.address, other.address, ())
        assert not host.access(host.address, identity(77).address, ())
        page["restrict"](host, [], [])
        await nursery.start(partial(host.serve_asgi, page_app))  # type: ignore[arg-type]
        assert await page["call_with_ticket"](other, host.address) == b"a page"
        nursery.cancel_scope.cancel()


async def use_hub(page: Namespace) -> None:
    async with trio.open_nursery() as nursery:
        assert [address.host for address in await page["run_hub"](nursery, 0)] == ["127.0.0.1"]
        nursery.cancel_scope.cancel()


async def use_quic(page: Namespace) -> None:
    roots, theirs = authority_and_leaf("upper.test")
    key = theirs.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / file for file in ("roots.pem", "certificate.pem", "key.pem")]
        for file, content in zip(files, (roots, ssl.DER_cert_to_PEM_cert(theirs.chain[0]).encode(), key), strict=True):
            file.write_bytes(content)
        async with trio.open_nursery() as nursery:
            address = await nursery.start(page["serve"], files[1], files[2], SocketAddress("127.0.0.1", 0))
            assert await page["ask"](files[0], address, "upper.test", b"hello") == b"HELLO"
            nursery.cancel_scope.cancel()
    async with two_connections(config=page["WITH_DATAGRAMS"]) as (near, far):
        await page["shout"](near, [b"one", b"two"])
        assert [await far.receive_datagram() for _ in range(2)] == [b"one", b"two"]


async def only_run(page: Namespace) -> None:
    """The page's code does something by itself."""


USES: dict[str, Callable[[Namespace], Awaitable[None]]] = {
    "index.md": use_index,
    "tutorial.md": use_tutorial,
    "howto/http.md": use_http,
    "howto/mcp.md": use_mcp,
    "howto/forward.md": use_forward,
    "howto/access.md": use_access,
    "howto/hub.md": use_hub,
    "howto/nat.md": only_run,
    "howto/quic.md": use_quic,
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
    command = load_command(words[1])
    with command.make_context(words[1], words[2:], parent=click.Context(commands)):
        pass


@pytest.mark.parametrize(
    ("shell", "line", "answer"),
    [
        ("bash", 'eval "$(_A2AL_TRIO_COMPLETE=bash_source a2al-trio)"', "plain,forward\n"),
        ("zsh", 'eval "$(_A2AL_TRIO_COMPLETE=zsh_source a2al-trio)"', "plain\nforward\nLead a local TCP port"),
        ("fish", "_A2AL_TRIO_COMPLETE=fish_source a2al-trio | source", "plain\nforward\nLead a local TCP port"),
    ],
)
def test_shells_complete_commands(shell: str, line: str, answer: str) -> None:
    assert blocks("reference/commands.md", shell) == [line + "\n"]
    asked = {"_A2AL_TRIO_COMPLETE": f"{shell}_source"}
    script = CliRunner().invoke(commands, env=asked, prog_name="a2al-trio", complete_var="_A2AL_TRIO_COMPLETE").stdout
    assert f"{shell}_complete" in script
    if program := shutil.which(shell):
        subprocess.run([program, "-c", script], check=True, timeout=20)
    asked = {"_A2AL_TRIO_COMPLETE": f"{shell}_complete", "COMP_WORDS": "a2al-trio forw"}
    asked["COMP_CWORD"] = "forw" if shell == "fish" else "1"
    told = CliRunner().invoke(commands, env=asked, prog_name="a2al-trio", complete_var="_A2AL_TRIO_COMPLETE").stdout
    assert told.replace("\t", "\n").replace(",", "\n").startswith(answer.replace(",", "\n"))


# --- settings ---------------------------------------------------------------------------------------------------


def test_settings_files_are_understood(tmp_path: Path) -> None:
    files = [block for page in PAGES for block in blocks(page, "toml")]
    assert files
    for number, text in enumerate(files):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert load_config(path) != HostConfig()


def test_the_unit_starts_a_command_that_is_there() -> None:
    [text] = blocks("howto/deploy.md", "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    _, name, *words = shlex.split(unit["Service"]["ExecStart"])
    with load_command(name).make_context(name, words, parent=click.Context(commands)):
        pass


# --- pages ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_pages_build_without_warnings(site: Path) -> None:
    for page in PAGES:
        assert (site / page).with_suffix(".html").exists()


def test_the_reference_has_every_public_name(site: Path) -> None:
    """All that a package names in `__all__` has its place there."""
    content = (site / "objects.inv").read_bytes()
    known = {line.split()[0] for line in zlib.decompress(content.split(b"\n", 4)[4]).decode().splitlines()}
    for module in pkgutil.iter_modules(a2al_trio.__path__):
        if module.ispkg and module.name != "cli":
            package = importlib.import_module(f"a2al_trio.{module.name}")
            names = [f"{package.__name__}.{name}" for name in getattr(package, "__all__", ())]
            parts = [name for name in known if name.startswith(f"{package.__name__}.")]
            assert parts, f"{package.__name__} is not in docs/reference"
            missing = [name for name in names if name not in known]
            assert not missing
