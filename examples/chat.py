"""A room: what one agent says, all others in it hear, with the speaker's proven AID."""

from __future__ import annotations

import os

import trio
from loopback import open_pair

from a2al_trio import AgentConnection, Identity
from a2al_trio.quic import QuicStream

LINE_LIMIT = 1000


class Room:
    """Who is here. A listener that does not keep up is left out rather than waited for."""

    def __init__(self) -> None:
        self._lines: dict[QuicStream, trio.MemorySendChannel[str]] = {}

    async def serve(self, connection: AgentConnection) -> None:
        async for stream in connection:
            async with stream, trio.open_nursery() as nursery:
                self._lines[stream], lines = trio.open_memory_channel[str](100)
                nursery.start_soon(self._tell, stream, lines)
                try:
                    await stream.send_all(b"welcome\n")
                    async for line in lines_of(stream):
                        self._say(f"{connection.remote}: {line}", but=stream)
                finally:
                    del self._lines[stream]
                nursery.cancel_scope.cancel()

    def _say(self, line: str, *, but: QuicStream) -> None:
        for stream, lines in self._lines.items():
            if stream is not but and lines.statistics().current_buffer_used < 100:
                lines.send_nowait(line)

    async def _tell(self, stream: QuicStream, lines: trio.MemoryReceiveChannel[str]) -> None:
        async for line in lines:
            await stream.send_all(f"{line}\n".encode())


class lines_of:
    """The lines of a stream."""

    def __init__(self, stream: QuicStream) -> None:
        self._stream = stream
        self._rest = b""

    def __aiter__(self) -> lines_of:
        return self

    async def __anext__(self) -> str:
        while b"\n" not in self._rest:
            chunk = await self._stream.receive_some()
            if not chunk or len(self._rest) > LINE_LIMIT:
                raise StopAsyncIteration
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace")


async def main() -> None:
    async with open_pair() as (place, guests), trio.open_nursery() as nursery:
        await nursery.start(place.serve, Room().serve)
        alice, bob = Identity.generate(os.urandom), Identity.generate(os.urandom)
        guests.register_agent(alice)
        guests.register_agent(bob)
        async with (
            guests.connect(place.address, local=alice.address) as to_room,
            guests.connect(place.address, local=bob.address) as also_to_room,
            await to_room.open_stream() as speaking,
            await also_to_room.open_stream() as listening,
        ):
            heard = lines_of(listening)
            for stream in (speaking, listening):
                await stream.send_all(b"\n")  # the first byte opens a stream at the other side
            assert await anext(heard) == "welcome"
            assert await anext(lines_of(speaking)) == "welcome"
            await speaking.send_all(b"hello, all\n")
            while "hello" not in (line := await anext(heard)):
                pass
            print("bob heard", line.replace(str(alice.address), "alice"))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
