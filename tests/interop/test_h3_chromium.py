"""A browser loads a page from an agent over HTTP/3: headless Chromium, in a network without a way out."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from a2al_trio.host import Host, HostConfig, WebAgent, open_host
from a2al_trio.host.access import AccessList
from a2al_trio.http.asgi import Receive, Scope, Send
from a2al_trio.identity import Identity
from a2al_trio.quic import Credentials
from tests.interop.private_network import assert_no_way_out, private_network, why_not
from tests.quic.tls_support import credentials

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("no_leaks")]

ADDRESS = "20.1.9.1"
NAME = "agent.example"
LIMIT = 60
PAGE = """<!doctype html><html><head><meta charset="utf-8"><title>An agent</title>
<link rel="stylesheet" href="style.css"></head><body><h1>Hello, browser</h1>
<p>This page was loaded from agent<br><code>{agent}</code><br>over HTTP/{version}, caller: {caller}.</p>
<p id="answer">waiting</p><script src="script.js"></script></body></html>"""
STYLE = "body{font:20px sans-serif;margin:40px;background:#eef}code{background:#fff;padding:4px}#answer{color:#060}"
SCRIPT = """fetch("echo",{method:"POST",body:"posted by the page"}).then(r=>r.text())
.then(t=>{document.getElementById("answer").textContent="answer: "+t})"""


class Site:
    """Pages that show how they were asked for, and what was."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.callers: set[str | None] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        peer = scope["extensions"]["a2al.peer"]
        self.asked.append((scope["http_version"], scope["method"], scope["path"]))
        self.callers.add(peer["aid"])
        status, kind = 200, "text/html"
        match scope["path"]:
            case "/":
                page = PAGE.format(
                    agent=peer["agent"], version=scope["http_version"], caller=peer["aid"] or "anonymous"
                )
            case "/style.css":
                page, kind = STYLE, "text/css"
            case "/script.js":
                page, kind = SCRIPT, "text/javascript"
            case "/echo":
                page, kind = (await receive())["body"].decode(), "text/plain"
            case _:
                page, status = "", 404
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": page.encode()})


@pytest.fixture
def browser() -> Iterator[str]:
    """A browser, and a network of its own to run it in."""
    found = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
    if found is None:
        pytest.skip("no headless browser: apt-get install chromium-headless-shell")
    if reason := why_not():
        pytest.skip(reason)
    with private_network(ADDRESS):
        yield found


def _pin(certificate: Credentials) -> str:
    key = certificate.private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


async def _load(browser: str, url: str, host: Host, certificate: Credentials, directory: Path, *extra: str) -> str:
    """Have the browser load a page; returns the document as it is after its scripts have run."""
    assert_no_way_out()
    port = host.quic_address.port
    command = [
        browser,
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-sync",
        "--no-first-run",
        "--no-proxy-server",
        "--enable-quic",
        f"--user-data-dir={directory / 'profile'}",
        f"--host-resolver-rules=MAP * {ADDRESS}:{port}",
        f"--origin-to-force-quic-on={NAME}:{port},{str(host.address).lower()}:{port}",
        f"--ignore-certificate-errors-spki-list={_pin(certificate)}",
        "--virtual-time-budget=5000",
        *extra,
        url,
    ]
    process = _start(command, directory)
    try:
        page, complaints = await trio.to_thread.run_sync(process.communicate)
    finally:
        process.kill()
    (directory / "complaints").write_text(complaints)
    return page


def _start(command: list[str], directory: Path) -> subprocess.Popen[str]:
    """Started by this very thread, it lives in this thread's network; Trio's own helper uses others."""
    home = os.environ | {"HOME": str(directory)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=home)


@pytest.mark.parametrize("by", ["name", "AID"])
async def test_a_browser_loads_a_page_from_an_agent(browser: str, tmp_path: Path, by: str) -> None:
    """By a host name of ours, or by the AID itself; its picture is left in the test's directory."""
    site, certificate = Site(), credentials("p256", NAME)
    identity = Identity.generate(os.urandom)
    web = WebAgent(agent=identity.address, client_cert="optional", names=[NAME], credentials=certificate)
    with trio.fail_after(LIMIT):
        async with (
            open_host(identity, HostConfig(listen=f"{ADDRESS}:0")) as host,
            trio.open_nursery() as nursery,
        ):
            host.access = AccessList(anonymous=True)
            await nursery.start(partial(host.serve_asgi, site, web=[web]))
            url = f"https://{NAME if by == 'name' else host.address}:{host.quic_address.port}/"
            picture = tmp_path / "page.png"
            page = await _load(browser, url, host, certificate, tmp_path, "--dump-dom", f"--screenshot={picture}")
            assert "over HTTP/3, caller: anonymous" in page, (tmp_path / "complaints").read_text()
            assert "answer: posted by the page" in page
            assert str(host.address) in page
            assert picture.read_bytes().startswith(b"\x89PNG")
            nursery.cancel_scope.cancel()
    assert {(version, method, path) for version, method, path in site.asked} >= {
        ("3", "GET", "/"),
        ("3", "GET", "/style.css"),
        ("3", "GET", "/script.js"),
        ("3", "POST", "/echo"),
    }
    assert site.callers == {None}
