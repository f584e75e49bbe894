"""aioquic's HTTP/3 worker: the number in a request's path is how many bytes come back."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent

from benchmarks.workers.common import CHUNK, Cost, Job, parse_job, print_result, serve_until_told
from benchmarks.workers.h3_ours import ANSWER_FIELDS, FIELDS

__all__ = ["main"]


class Http(QuicConnectionProtocol):
    """HTTP/3 on one connection."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.http = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for http_event in self.http.handle_event(event):
            self.handle(http_event)

    def handle(self, event: H3Event) -> None:
        raise NotImplementedError


class Server(Http):
    """Sends as much as is asked for; neither library call can be waited for, so all at once."""

    def handle(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            wanted = int(dict(event.headers)[b":path"][1:])
            length = (b"content-length", b"%d" % wanted)
            self.http.send_headers(event.stream_id, [(b":status", b"200"), *ANSWER_FIELDS, length])
            while wanted > len(CHUNK):
                self.http.send_data(event.stream_id, CHUNK, end_stream=False)
                wanted -= len(CHUNK)
            self.http.send_data(event.stream_id, CHUNK[:wanted], end_stream=True)
            self.transmit()


class Client(Http):
    """Makes requests and counts what comes back."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.waiting: dict[int, tuple[asyncio.Future[int], int]] = {}

    def handle(self, event: H3Event) -> None:
        if isinstance(event, (DataReceived, HeadersReceived)):
            future, got = self.waiting[event.stream_id]
            got += len(event.data) if isinstance(event, DataReceived) else 0
            self.waiting[event.stream_id] = future, got
            if event.stream_ended:
                del self.waiting[event.stream_id]
                future.set_result(got)

    async def fetch(self, size: int) -> None:
        """Ask for `size` bytes and read them."""
        stream_id = self._quic.get_next_available_stream_id()
        future = asyncio.get_running_loop().create_future()
        self.waiting[stream_id] = future, 0
        pseudo = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", b"/%d" % size),
        ]
        self.http.send_headers(stream_id, [*pseudo, *FIELDS], end_stream=True)
        self.transmit()
        got = await future
        assert got == size, f"{got} bytes instead of {size}"


def configuration(job: Job, *, is_client: bool) -> QuicConfiguration:
    config = QuicConfiguration(
        is_client=is_client, alpn_protocols=["h3"], idle_timeout=120.0, verify_mode=ssl.CERT_NONE
    )
    if job.datagram:
        config.max_datagram_size = job.datagram
    if not is_client:
        config.load_cert_chain(job.certificate, job.key)
    return config


async def run_server(job: Job) -> None:
    server: Any = await serve("127.0.0.1", 0, configuration=configuration(job, is_client=False), create_protocol=Server)
    serve_until_told(server._transport.get_extra_info("sockname")[1])
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def run_task(job: Job) -> dict[str, float]:
    config = configuration(job, is_client=True)
    async with connect("127.0.0.1", job.port, configuration=config, create_protocol=Client) as protocol:
        assert isinstance(protocol, Client)
        await protocol.fetch(1000)

        async def fetch_many() -> None:
            for _ in range(job.count // job.concurrency):
                await protocol.fetch(job.size)

        cost = Cost(job)
        await asyncio.gather(*(fetch_many() for _ in range(job.concurrency)))
        return cost.stop()


def main() -> None:
    """Run the worker."""
    job = parse_job()
    if job.role == "server":
        asyncio.run(run_server(job))
    else:
        print_result(asyncio.run(run_task(job)))


if __name__ == "__main__":
    main()
