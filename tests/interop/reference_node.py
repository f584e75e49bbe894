"""The reference daemon as a test peer (spec 07): start it, ask its REST interface, end it.

Only ever run inside `private_network`: with its defaults it looks for public servers.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import attrs
import httpx
import pytest
import trio

from a2al_trio.net.address import SocketAddress
from tests.interop.private_network import assert_no_way_out

__all__ = [
    "PORT",
    "STUN_NOBODY_ANSWERS",
    "Client",
    "Place",
    "ReferenceAgent",
    "ReferenceNode",
    "find_binary",
    "open_reference_node",
]

Json = dict[str, Any]
PORT = 4121
STUN_NOBODY_ANSWERS = "stun:20.255.0.1:3478"
NEWEST_VARIABLE = "A2AL_TRIO_NEWEST_A2AL"


def find_binary(release: str) -> Path:
    """The daemon of release "0.2.0" or "newest"; skips the test if it is not installed."""
    if release == "newest":
        directory = os.environ.get(NEWEST_VARIABLE)
        if not directory:
            pytest.skip(f"run `pip install --no-deps --target DIR a2al` and set {NEWEST_VARIABLE}=DIR")
        binary = Path(directory) / "a2al" / "bin" / "a2ald"
    else:
        spec = importlib.util.find_spec("a2al")
        if spec is None or spec.origin is None:
            pytest.skip("the reference daemon is not installed: pip install 'a2al-trio[interop]'")
        binary = Path(spec.origin).parent / "bin" / "a2ald"
    if not binary.is_file():
        pytest.skip(f"there is no {binary} on this platform")
    return binary


class Client(Protocol):
    """What asks the REST interface: `httpx.AsyncClient`, or one that does so in another network."""

    async def request(self, method: str, url: str, *, json: Json | None = None) -> httpx.Response:
        """Make one request."""


class Place(Protocol):
    """Where a daemon runs."""

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program there."""

    def client(self, base_url: str) -> AbstractAsyncContextManager[Client]:
        """A client whose requests are made there."""


class Here:
    """The network of the calling thread, which must have no way out."""

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """See `Place`."""
        # Started by this very thread: Trio would use a worker thread, which may be in another network.
        assert_no_way_out()
        return subprocess.Popen(argv, **options)

    def client(self, base_url: str) -> AbstractAsyncContextManager[Client]:
        """See `Place`."""
        return httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=None)


@attrs.frozen
class ReferenceAgent:
    """An agent registered on a reference node."""

    aid: str
    operational_key: bytes
    delegation: bytes


@attrs.define(eq=False)
class ReferenceNode:
    """A running daemon."""

    host: str
    aid: str
    version: str
    log: Path
    _client: Client

    @property
    def address(self) -> SocketAddress:
        """Its UDP socket, for DHT and QUIC."""
        return SocketAddress(self.host, PORT)

    @property
    def hub(self) -> str:
        """Its signaling hub, if it was started with one."""
        return f"ws://{self.address}"

    async def get(self, path: str) -> Json:
        """Ask the REST interface; fails the test on any error status."""
        return self._answer(await self._client.request("GET", path))

    async def post(self, path: str, body: Json | None = None) -> Json:
        """Ask the REST interface; fails the test on any error status."""
        return self._answer(await self.post_any(path, body))

    async def post_any(self, path: str, body: Json | None = None) -> httpx.Response:
        """Ask the REST interface and take any status."""
        return await self._client.request("POST", path, json=body or {})

    @staticmethod
    def _answer(response: httpx.Response) -> Json:
        assert response.is_success, f"{response.request.url} answered {response.status_code}: {response.text}"
        answer: Json = response.json()
        return answer

    async def add_agent(self, service: SocketAddress | None = None, *, publish: bool = True) -> ReferenceAgent:
        """Register a new agent, bridged to a TCP service, and publish where it is."""
        made = await self.post("/identity/generate")
        agent = ReferenceAgent(
            made["aid"],
            bytes.fromhex(made["operational_private_key_hex"]),
            bytes.fromhex(made["delegation_proof_hex"]),
        )
        body: Json = {
            "operational_private_key_hex": agent.operational_key.hex(),
            "delegation_proof_hex": agent.delegation.hex(),
        }
        if service is not None:
            body["service_tcp"] = str(service)
        await self.post("/agents", body)
        if publish:
            await self.publish(agent.aid)
        return agent

    async def remove_agent(self, aid: str) -> None:
        """Forget an agent; its operational key and proof stay good for whoever has them."""
        response = await self._client.request("DELETE", f"/agents/{aid}", json={})
        assert response.is_success, response.text

    async def stored_records(self) -> list[tuple[str, int]]:
        """What its DHT store holds: the hex form of each record's AID, and its type."""
        response = await self._client.request("GET", "/debug/store")
        return [(entry["address_hex"], entry["rec_type"]) for entry in response.json()]

    async def publish(self, aid: str) -> int:
        """Publish the endpoint record of an agent; returns its seq."""
        answer = await self.post(f"/agents/{aid}/publish")
        assert answer["ok"], answer
        return int(answer["seq"])

    async def fetch(self, aid: str, path: str = "/", *, local: str = "", body: bytes = b"") -> tuple[int, bytes]:
        """Make one HTTP request to an agent, over an agent connection; returns status and body."""
        request: Json = {
            "method": "POST" if body else "GET",
            "path": path,
            "local_aid": local,
            "body_base64": base64.b64encode(body).decode(),
        }
        answer = await self.post(f"/fetch/{aid}", request)
        assert not answer.get("truncated"), "the answer was cut"
        return answer["status"], base64.b64decode(answer["body"])

    async def connect(self, aid: str, *, local: str = "") -> SocketAddress:
        """Dial an agent; returns a local TCP address that leads there, for one connection."""
        answer = await self.post(f"/connect/{aid}", {"local_aid": local})
        return SocketAddress.parse(answer["tunnel"])


@asynccontextmanager
async def open_reference_node(
    binary: Path,
    directory: Path,
    host: str,
    *,
    api_port: int,
    bootstrap: tuple[str, ...] = (),
    hub: bool = False,
    settings: Sequence[str] = (),
    stun: str = STUN_NOBODY_ANSWERS,
    place: Place | None = None,
) -> AsyncIterator[ReferenceNode]:
    """Run a daemon on `host` until the block ends; ready means that its own record is published.

    `settings` are further lines of its configuration.
    """
    place = place or Here()
    config = [
        f'listen_addr = "{host}:{PORT}"',
        f'api_addr = "127.0.0.1:{api_port}"',
        'log_level = "debug"',
        "disable_upnp = true",
        f"bootstrap = {json.dumps(list(bootstrap))}",
        f'ice_stun_urls = ["{stun}"]',
    ]
    if hub:
        config.append(f'signal_listen_addr = "{host}:{PORT}"')
    log = directory / "log"
    process = _start(place, binary, directory, config="\n".join([*config, *settings, ""]))
    try:
        api = f"http://127.0.0.1:{api_port}"
        async with place.client(api) as client:
            status = await _published(client, process)
            yield ReferenceNode(host, status["node_aid"], status["version"], log, client)
    finally:
        # Its orderly shutdown takes seconds and shows nothing here.
        process.kill()
        process.wait()
        # Shown by pytest when the test fails.
        print(f"--- end of the log of {host}", *log.read_text(errors="replace").splitlines()[-60:], sep="\n")


def _start(place: Place, binary: Path, directory: Path, *, config: str) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(config)
    with (directory / "log").open("wb") as output:
        return place.start(
            [str(binary), "--data-dir", str(directory), "-no-open-browser"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": str(directory)},
        )


async def _published(client: Client, process: subprocess.Popen[bytes]) -> Json:
    while True:
        assert process.poll() is None, "the daemon ended at once"
        try:
            response = await client.request("GET", "/status")
        except (httpx.TransportError, OSError):
            pass
        else:
            status: Json = response.json()
            if status.get("node_published"):
                return status
        await trio.sleep(0.02)
