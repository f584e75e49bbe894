"""The aioquic and qh3 workers: both have the same asyncio interface."""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
import sys
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.workers.common import (
    ALPN,
    CHUNK,
    HEADER,
    Cost,
    Job,
    parse_job,
    print_result,
    resident_kib,
    serve_until_told,
    settle,
)

__all__ = ["main"]

ED25519 = 0x0807
"""The signature scheme of the certificates; qh3 does not offer it by itself."""


class Peer:
    """One of the two libraries, configured for a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.api: Any = importlib.import_module(f"{job.contender}.asyncio")
        self._configuration: Any = importlib.import_module(f"{job.contender}.quic.configuration").QuicConfiguration

    def configuration(self, *, is_client: bool) -> Any:
        """As shipped, but for the certificate and, if asked, the datagram size."""
        extra: dict[str, Any] = {}
        if self.job.datagram:
            extra["max_datagram_size"] = self.job.datagram
            if self.job.contender == "qh3":
                extra["probe_datagram_size"] = False
        if self.job.contender == "qh3":
            extra["signature_algorithms"] = [ED25519]
        configuration = self._configuration(
            is_client=is_client, alpn_protocols=[ALPN], idle_timeout=120.0, verify_mode=ssl.CERT_NONE, **extra
        )
        if not is_client and self.job.contender == "aioquic":
            # The client's certificate is asked for and verified against itself as the one CA.
            configuration.verify_mode = ssl.CERT_REQUIRED
            configuration.load_verify_locations(cafile=str(self.job.certificate))
        if not is_client or self.job.contender == "aioquic":
            configuration.load_cert_chain(self.job.certificate, self.job.key)
        return configuration

    def connect(self) -> Any:
        """The library's own connecting context manager."""
        return self.api.connect("127.0.0.1", self.job.port, configuration=self.configuration(is_client=True))

    def server_protocol(self) -> Any:
        """The protocol class of the server; aioquic has no setting that asks clients for certificates."""
        base = self.api.QuicConnectionProtocol
        if self.job.contender != "aioquic":
            return base

        class AskingProtocol(base):  # type: ignore[misc, valid-type]
            def __init__(self, quic: Any, *rest: Any, **settings: Any) -> None:
                super().__init__(quic, *rest, **settings)
                initialize = quic._initialize

                def initialize_and_ask(peer_cid: bytes) -> None:
                    initialize(peer_cid)
                    quic.tls._request_client_certificate = True

                quic._initialize = initialize_and_ask

        return AskingProtocol


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one stream of the benchmark's protocol; neither library's writers can be waited for."""
    to_come, wanted = HEADER.unpack(await reader.readexactly(HEADER.size))
    while to_come > 0:
        data = await reader.read(262_144)
        if not data:
            return
        to_come -= len(data)
    while wanted > 0:
        writer.write(CHUNK[: min(wanted, len(CHUNK))])
        wanted -= len(CHUNK)
    writer.write_eof()


async def serve(peer: Peer) -> None:
    tasks = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await peer.api.serve(
        "127.0.0.1",
        0,
        configuration=peer.configuration(is_client=False),
        stream_handler=handle,
        create_protocol=peer.server_protocol(),
    )
    port = server._transport.get_extra_info("sockname")[1]
    serve_until_told(port)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def exchange(client: Any, upload: int, wanted: int) -> None:
    """Send `upload` bytes on a new stream and read the answer to its end."""
    reader, writer = await client.create_stream()
    writer.write(HEADER.pack(upload, wanted))
    left = upload
    while left > 0:
        writer.write(CHUNK[: min(left, len(CHUNK))])
        left -= len(CHUNK)
    writer.write_eof()
    got = 0
    while data := await reader.read(262_144):
        got += len(data)
    assert got == wanted, f"{got} bytes instead of {wanted}"


async def run_task(peer: Peer) -> dict[str, float]:
    job = peer.job
    if job.task == "handshakes":
        return await run_handshakes(peer)
    if job.task == "memory":
        return await run_memory(peer)
    async with peer.connect() as client:
        await exchange(client, 1000, 1000)
        cost = Cost(job)
        if job.task == "requests":

            async def request_many(count: int) -> None:
                for _ in range(count):
                    await exchange(client, 56, 64)

            await asyncio.gather(*(request_many(job.count // job.concurrency) for _ in range(job.concurrency)))
        else:
            upload, wanted = (job.size, 1) if job.task == "upload" else (0, job.size)
            await asyncio.gather(*(exchange(client, upload, wanted) for _ in range(job.streams)))
        return cost.stop()


async def run_handshakes(peer: Peer) -> dict[str, float]:
    async def connect_many(count: int) -> None:
        for _ in range(count):
            async with peer.connect() as client:
                client.close()

    await connect_many(2)
    cost = Cost(peer.job)
    each = peer.job.count // peer.job.concurrency
    await asyncio.gather(*(connect_many(each) for _ in range(peer.job.concurrency)))
    return cost.stop()


async def run_memory(peer: Peer) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        await exchange(await stack.enter_async_context(peer.connect()), 1000, 1000)
        settle()
        client_before, server_before = resident_kib(os.getpid()), resident_kib(peer.job.server_pid)
        for _ in range(peer.job.count):
            await stack.enter_async_context(peer.connect())
        await asyncio.sleep(0.3)
        settle()
        result = {
            "client_kib": (resident_kib(os.getpid()) - client_before) / peer.job.count,
            "server_kib": (resident_kib(peer.job.server_pid) - server_before) / peer.job.count,
        }
        print_result(result)
        os._exit(0)  # closing hundreds of connections one by one is not what is measured


def main() -> None:
    """Run the worker."""
    job = parse_job()
    peer = Peer(job)
    if job.role == "server":
        asyncio.run(serve(peer))
    else:
        print_result(asyncio.run(run_task(peer)))


if __name__ == "__main__":
    main()
