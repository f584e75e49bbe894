"""Our own worker: the same tasks over `a2al_trio.quic`."""

from __future__ import annotations

import os
import sys

import attrs
import trio

from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import (
    ClientAuthentication,
    ClientTls,
    Credentials,
    QuicConfig,
    QuicConnection,
    QuicEndpoint,
    ServerTls,
    open_quic,
)
from a2al_trio.quic.driver.stream import QuicStream
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

SETTLE_SECONDS = 3.0
LOOPBACK = SocketAddress("127.0.0.1", 0)


def accept_any(chain: tuple[bytes, ...], server_name: str | None) -> None:
    """Who the peer is does not matter here; that it holds its key has been verified."""


def configuration(job: Job) -> QuicConfig:
    config = QuicConfig(idle_timeout=300.0)
    if job.datagram:
        config = attrs.evolve(config, initial_udp_payload_size=job.datagram, path_mtu_discovery=False)
    if job.concurrency > config.max_bidirectional_streams:
        config = attrs.evolve(config, max_bidirectional_streams=job.concurrency)
    return config


def credentials(job: Job) -> Credentials:
    return Credentials.from_pem(job.certificate.read_bytes(), job.key.read_bytes())


async def answer(stream: QuicStream) -> None:
    """Serve one stream of the benchmark's protocol."""
    data = await stream.receive_some()
    to_come, wanted = HEADER.unpack(data[: HEADER.size])
    to_come -= len(data) - HEADER.size
    while to_come > 0:
        to_come -= len(await stream.receive_some())
    while wanted > len(CHUNK):
        await stream.send_all(CHUNK)
        wanted -= len(CHUNK)
    await stream.send_all(CHUNK[:wanted], end=True)


async def serve_connection(connection: QuicConnection) -> None:
    """Answer all streams of a connection, side by side."""
    await connection.serve(answer)


async def serve(job: Job) -> None:
    tls = ServerTls(
        alpn=(ALPN,),
        credentials=credentials(job),
        client_authentication=ClientAuthentication.REQUIRED,
        verify_peer=accept_any,
    )

    async with (
        open_udp(LOOPBACK) as socket,
        open_quic(socket, configuration(job), server=tls) as endpoint,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(endpoint.serve, serve_connection)
        serve_until_told(endpoint.local_address.port)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


class Client:
    """The client's endpoint and what it needs to connect."""

    def __init__(self, job: Job, endpoint: QuicEndpoint) -> None:
        self.job = job
        self.endpoint = endpoint
        self._tls = ClientTls(alpn=(ALPN,), credentials=credentials(job), verify_peer=accept_any)

    async def connect(self) -> QuicConnection:
        """Connect to the server."""
        address = SocketAddress("127.0.0.1", self.job.port)
        return await self.endpoint.connect(address, tls=self._tls, server_name="localhost")


async def exchange(connection: QuicConnection, upload: int, wanted: int) -> None:
    """Send `upload` bytes on a new stream and read the answer to its end."""
    async with await connection.open_stream() as stream:
        if upload <= 1000:
            await stream.send_all(HEADER.pack(upload, wanted) + CHUNK[:upload], end=True)
        else:
            await stream.send_all(HEADER.pack(upload, wanted))
            while upload > len(CHUNK):
                await stream.send_all(CHUNK)
                upload -= len(CHUNK)
            await stream.send_all(CHUNK[:upload], end=True)
        got = 0
        while not stream.at_end:
            got += len(await stream.receive_some())
        assert got == wanted, f"{got} bytes instead of {wanted}"


async def run_task(job: Job) -> dict[str, float]:
    async with open_udp(LOOPBACK) as socket, open_quic(socket, configuration(job)) as endpoint:
        client = Client(job, endpoint)
        if job.task == "handshakes":
            return await run_handshakes(client)
        if job.task == "connections":
            return await run_connections(client)
        connection = await client.connect()
        await exchange(connection, 1000, 1000)
        if job.task == "memory":
            return await run_memory(client)
        cost = Cost(job)
        async with trio.open_nursery() as nursery:
            if job.task == "requests":

                async def request_many() -> None:
                    for _ in range(job.count // job.concurrency):
                        await exchange(connection, 56, 64)

                for _ in range(job.concurrency):
                    nursery.start_soon(request_many)
            else:
                upload, wanted = (job.size, 1) if job.task == "upload" else (0, job.size)
                for _ in range(job.streams):
                    nursery.start_soon(exchange, connection, upload, wanted)
        return cost.stop()


async def run_handshakes(client: Client) -> dict[str, float]:
    async def connect_many(count: int) -> None:
        for _ in range(count):
            (await client.connect()).close()

    await connect_many(2)
    cost = Cost(client.job)
    async with trio.open_nursery() as nursery:
        for _ in range(client.job.concurrency):
            nursery.start_soon(connect_many, client.job.count // client.job.concurrency)
    return cost.stop()


async def run_connections(client: Client) -> dict[str, float]:
    """Requests spread over many connections, one at a time on each; then all of them idle for some seconds."""
    job = client.job
    connections = [await client.connect() for _ in range(job.streams)]
    each = job.count // len(connections)

    async def request_many(connection: QuicConnection) -> None:
        for _ in range(each):
            await exchange(connection, 56, 64)

    cost = Cost(job)
    async with trio.open_nursery() as nursery:
        for connection in connections:
            nursery.start_soon(request_many, connection)
    figures = cost.stop()
    if not job.idle:
        return figures
    await trio.sleep(SETTLE_SECONDS)
    idle = Cost(job)
    await trio.sleep(job.idle)
    return {**figures, **{f"idle_{name}": value for name, value in idle.stop().items()}}


async def run_memory(client: Client) -> dict[str, float]:
    job = client.job
    settle()
    client_before, server_before = resident_kib(os.getpid()), resident_kib(job.server_pid)
    connections = [await client.connect() for _ in range(job.count)]
    await trio.sleep(0.3)
    settle()
    return {
        "client_kib": (resident_kib(os.getpid()) - client_before) / len(connections),
        "server_kib": (resident_kib(job.server_pid) - server_before) / len(connections),
    }


def main() -> None:
    """Run the worker."""
    job = parse_job()
    if job.role == "server":
        trio.run(serve, job)
    else:
        print_result(trio.run(run_task, job))


if __name__ == "__main__":
    main()
