"""Our HTTP/3 worker: the number in a request's path is how many bytes come back."""

from __future__ import annotations

import sys

import trio

from a2al_trio.h3 import H3Client, RequestHead, ResponseHead, ServerExchange, open_h3_client, open_h3_server
from a2al_trio.net.address import SocketAddress
from a2al_trio.net.socket import open_udp
from a2al_trio.quic import ClientTls, QuicConnection, ServerTls, open_quic
from benchmarks.workers.common import CHUNK, Cost, Job, parse_job, print_result, serve_until_told
from benchmarks.workers.ours import LOOPBACK, accept_any, configuration, credentials

__all__ = ["main"]

FIELDS = ((b"user-agent", b"benchmark/1.0"), (b"accept", b"*/*"), (b"accept-language", b"en"))
ANSWER_FIELDS = ((b"content-type", b"application/octet-stream"), (b"server", b"benchmark"))


async def answer(exchange: ServerExchange) -> None:
    """Send as much as is asked for."""
    wanted = int((await exchange.receive_head()).path[1:])
    head = ResponseHead(200, (*ANSWER_FIELDS, (b"content-length", b"%d" % wanted)))
    await exchange.send_response(head, CHUNK[:wanted], end=wanted <= len(CHUNK))
    while (wanted := wanted - len(CHUNK)) > 0:
        await exchange.send_data(CHUNK[:wanted], end=wanted <= len(CHUNK))


async def serve(job: Job) -> None:
    async def serve_connection(connection: QuicConnection) -> None:
        async with open_h3_server(connection) as server:
            await server.serve(answer)

    async with (
        open_udp(LOOPBACK) as socket,
        open_quic(socket, configuration(job), server=ServerTls(alpn=("h3",), credentials=credentials(job))) as endpoint,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(endpoint.serve, serve_connection)
        serve_until_told(endpoint.local_address.port)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


async def fetch(client: H3Client, size: int) -> None:
    """Ask for `size` bytes and read them."""
    head = RequestHead(b"GET", b"localhost", b"/%d" % size, FIELDS)
    async with await client.request(head, end=True) as exchange:
        assert (await exchange.receive_response()).status == 200
        got = 0
        async for chunk in exchange:
            got += len(chunk)
        assert got == size, f"{got} bytes instead of {size}"


async def run_task(job: Job) -> dict[str, float]:
    tls = ClientTls(alpn=("h3",), verify_peer=accept_any)
    async with (
        open_udp(LOOPBACK) as socket,
        open_quic(socket, configuration(job)) as endpoint,
        await endpoint.connect(SocketAddress("127.0.0.1", job.port), tls=tls, server_name="localhost") as connection,
        open_h3_client(connection) as client,
    ):
        await fetch(client, 1000)

        async def fetch_many() -> None:
            for _ in range(job.count // job.concurrency):
                await fetch(client, job.size)

        cost = Cost(job)
        async with trio.open_nursery() as nursery:
            for _ in range(job.concurrency):
                nursery.start_soon(fetch_many)
        return cost.stop()


def main() -> None:
    """Run the worker."""
    job = parse_job()
    if job.role == "server":
        trio.run(serve, job)
    else:
        print_result(trio.run(run_task, job))


if __name__ == "__main__":
    main()
