"""The endpoint of the public QUIC interop runner: `python -m a2al_trio.quic.interop`.

Reads ROLE, TESTCASE and REQUESTS as that runner sets them and speaks HTTP/0.9 ("GET /path" on a stream of its own, the
bare file as the answer; ALPN `hq-interop`). Test cases it does not know end with exit status 127, as the runner asks.

The runner's folders are /www, /downloads and /certs; WWW, DOWNLOADS, CERTS and PORT name others. SSLKEYLOGFILE and
QLOGDIR work as everywhere. Servers' certificates are not judged: the runner makes new ones for every run.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import urlsplit

import attrs
import trio

from a2al_trio.errors import ConnectionLost, RemoteProtocolError, StreamReset
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic.config import QuicConfig, RetryPolicy
from a2al_trio.quic.driver.connection import QuicConnection
from a2al_trio.quic.driver.endpoint import QuicEndpoint, open_quic
from a2al_trio.quic.driver.stream import QuicStream
from a2al_trio.quic.packet_crypto import VERSION_1, VERSION_2
from a2al_trio.quic.qlog import ObserverFactory, QlogWriter
from a2al_trio.quic.tls import SessionTicket
from a2al_trio.quic.tls.config import ClientTls, Credentials, ServerTls
from a2al_trio.quic.tls.suites import CipherSuite
from a2al_trio.quic.tls.tickets import TicketKeys

__all__ = ["Task", "main", "run_client", "run_server"]

ALPN = "hq-interop"
UNSUPPORTED = 127
FAILED = 1
REQUEST_LIMIT = 4096
FILE_CHUNK = 256 * 1024

ONE_CONNECTION = frozenset(
    {
        "amplificationlimit",
        "chacha20",
        "crosstraffic",
        "ecn",
        "goodput",
        "handshake",
        "ipv6",
        "keyupdate",
        "longrtt",
        "multiplexing",
        "optimize",
        "rebind-addr",
        "rebind-port",
        "retry",
        "transfer",
        "transfercorruption",
        "transferloss",
        "blackhole",
        "v2",
    }
)
"""Test cases whose files are all fetched on one connection."""
MANY_CONNECTIONS = frozenset({"handshakeloss", "handshakecorruption", "multiconnect"})
"""Test cases with a connection per file."""
RESUMING = frozenset({"resumption", "zerortt"})
"""Test cases that fetch the first file, then the others on a resumed connection."""
SUPPORTED = ONE_CONNECTION | MANY_CONNECTIONS | RESUMING


@attrs.frozen
class Task:
    """What the runner asks for."""

    test_case: str
    requests: tuple[str, ...] = ()
    www: Path = Path("/www")
    downloads: Path = Path("/downloads")
    certificates: Path = Path("/certs")
    port: int = 443
    keylog: Path | None = None
    qlog_folder: Path | None = None

    @classmethod
    def from_environment(cls, environment: dict[str, str]) -> Self:
        """Read the variables the runner sets."""
        keylog, qlog_folder = environment.get("SSLKEYLOGFILE"), environment.get("QLOGDIR")
        return cls(
            test_case=environment.get("TESTCASE", "handshake"),
            requests=tuple(environment.get("REQUESTS", "").split()),
            www=Path(environment.get("WWW", "/www")),
            downloads=Path(environment.get("DOWNLOADS", "/downloads")),
            certificates=Path(environment.get("CERTS", "/certs")),
            port=int(environment.get("PORT", "443")),
            keylog=Path(keylog) if keylog else None,
            qlog_folder=Path(qlog_folder) if qlog_folder else None,
        )

    @property
    def suites(self) -> tuple[CipherSuite, ...]:
        """The cipher suites of the test case."""
        return (CipherSuite.CHACHA20_POLY1305_SHA256,) if self.test_case == "chacha20" else tuple(CipherSuite)

    def write_key(self, line: str) -> None:
        """Append to the key log, if one is wanted."""
        if self.keylog is not None:
            with self.keylog.open("a") as file:
                file.write(line + "\n")

    def observe(self, files: ExitStack) -> ObserverFactory | None:
        """Write a qlog trace per connection, if they are wanted; the files are closed with `files`."""
        folder = self.qlog_folder
        if folder is None:
            return None

        def open_trace(cid: bytes, is_client: bool, peer: SocketAddress) -> QlogWriter:
            role = "client" if is_client else "server"
            file = files.enter_context((folder / f"{cid.hex()}_{role}.sqlog").open("w"))
            return QlogWriter(file.write, cid, is_client, peer)

        return open_trace


def accept_any(chain: tuple[bytes, ...], server_name: str | None) -> None:
    """The runner's certificates are its own."""


# --- server ----------------------------------------------------------------------------------------------------


async def run_server(task: Task, *, task_status: trio.TaskStatus[SocketAddress] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve the files of `task.www` until cancelled."""
    credentials = Credentials.from_pem(
        (task.certificates / "cert.pem").read_bytes(), (task.certificates / "priv.key").read_bytes()
    )
    tls = ServerTls(
        alpn=(ALPN,),
        credentials=credentials,
        suites=task.suites,
        tickets=TicketKeys(secrets.token_bytes),
        early_data=task.test_case == "zerortt",
        keylog=task.write_key,
    )
    traces = ExitStack()
    config = QuicConfig(
        observe=task.observe(traces),
        versions=(VERSION_2, VERSION_1) if task.test_case == "v2" else (VERSION_1, VERSION_2),
        retry=RetryPolicy.ALWAYS if task.test_case == "retry" else RetryPolicy.UNDER_LOAD,
        max_bidirectional_streams=1000,
    )

    async def serve_connection(connection: QuicConnection) -> None:
        async with trio.open_nursery() as nursery:
            async for stream in connection:
                nursery.start_soon(serve_file, stream, task.www)

    with traces:
        async with (
            open_udp(SocketAddress("::", task.port)) as socket,
            open_quic(socket, config, server=tls) as endpoint,
        ):
            await endpoint.serve(serve_connection, task_status=task_status)


async def serve_file(stream: QuicStream, folder: Path) -> None:
    """Answer one request; a file that is not there, or not ours to give, resets the stream."""
    async with stream:
        request = (await stream.receive_all(limit=REQUEST_LIMIT)).decode("ascii", "replace").split()
        if len(request) < 2 or request[0] != "GET" or ".." in PurePosixPath(request[1]).parts:
            stream.reset(1)
            return
        path = folder / request[1].lstrip("/")
        if not path.is_file():
            stream.reset(1)
            return
        with path.open("rb") as file:
            while chunk := file.read(FILE_CHUNK):
                await stream.send_all(chunk)


# --- client ----------------------------------------------------------------------------------------------------


async def run_client(task: Task) -> None:
    """Fetch all files the task asks for.

    Raises:
        ConnectionLost, RemoteProtocolError: a connection or a download failed.
    """
    urls = [urlsplit(url) for url in task.requests]
    found = await trio.socket.getaddrinfo(
        urls[0].hostname, urls[0].port or 443, type=trio.socket.SOCK_DGRAM, family=trio.socket.AF_UNSPEC
    )
    address = SocketAddress(str(found[0][4][0]), int(found[0][4][1]))
    with ExitStack() as traces:
        config = QuicConfig(idle_timeout=60.0, observe=task.observe(traces))
        async with open_udp() as socket, open_quic(socket, config) as endpoint:
            client = Client(task, endpoint, address, urls[0].hostname or "")
            await client.run([url.path for url in urls])


@attrs.frozen
class Client:
    """Fetches files from one server."""

    task: Task
    endpoint: QuicEndpoint
    address: SocketAddress
    host: str

    async def run(self, files: Sequence[str]) -> None:
        """Fetch `files` on as many connections as the test case wants."""
        if self.task.test_case in MANY_CONNECTIONS:
            for file in files:
                async with await self.connect() as connection:
                    await self.fetch_all(connection, [file])
        elif self.task.test_case in RESUMING:
            async with await self.connect() as first:
                await self.fetch_all(first, files[:1])
                ticket = await first.wait_session_ticket()
            async with await self.connect(ticket) as second:
                await self.fetch_all(second, files[1:])
        else:
            async with await self.connect() as connection:
                await self.fetch_all(connection, files)

    async def connect(self, ticket: SessionTicket | None = None) -> QuicConnection:
        """Connect, with early data if the test case and the ticket allow it."""
        early = self.task.test_case == "zerortt"
        tls = ClientTls(
            alpn=(ALPN,),
            verify_peer=accept_any,
            suites=self.task.suites,
            tickets=self.task.test_case in RESUMING,
            early_data=early,
            keylog=self.task.write_key,
        )
        return await self.endpoint.connect(
            self.address, tls=tls, server_name=self.host, ticket=ticket, early=early and ticket is not None
        )

    async def fetch_all(self, connection: QuicConnection, files: Sequence[str]) -> None:
        """Fetch `files` at once, each on a stream of its own."""
        async with trio.open_nursery() as nursery:
            for file in files:
                # Opening waits while the server allows no more streams.
                nursery.start_soon(self.fetch, connection, await connection.open_stream(), file)

    async def fetch(self, connection: QuicConnection, stream: QuicStream, file: str) -> None:
        """Fetch one file into the downloads folder."""
        async with stream:
            await stream.send_all(f"GET {file}\r\n".encode())
            await stream.send_eof()
            with (self.task.downloads / PurePosixPath(file).name).open("wb") as out:
                async for chunk in stream:
                    out.write(chunk)
                    if self.task.test_case == "keyupdate":
                        connection.update_keys()  # as often as the protocol allows


# --- command line ----------------------------------------------------------------------------------------------


def _run(run: Callable[[Task], Awaitable[None]], task: Task) -> int:
    status = 0
    try:
        trio.run(run, task)
    except* (ConnectionLost, RemoteProtocolError, StreamReset) as group:
        print(f"failed: {group.exceptions}", file=sys.stderr)
        status = FAILED
    except* KeyboardInterrupt:
        pass
    return status


def main() -> None:
    """Play the role the environment names."""
    task = Task.from_environment(dict(os.environ))
    if task.test_case not in SUPPORTED:
        sys.exit(UNSUPPORTED)
    sys.exit(_run(run_server if os.environ.get("ROLE") == "server" else run_client, task))


if __name__ == "__main__":
    main()
