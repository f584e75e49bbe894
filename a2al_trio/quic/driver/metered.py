"""Streams whose number and bytes somebody counts: limits for callers, whatever protocol they speak."""

from __future__ import annotations

from typing import Protocol

from a2al_trio.quic.driver.stream import Buffer, QuicStream, in_bytes

__all__ = ["MeteredStream", "StreamMeter"]

PIECE = 64 * 1024
"""Bytes sent between two looks at the meter."""


class StreamMeter(Protocol):
    """Counts the incoming streams of a connection and the bytes on them, and makes them wait."""

    async def admit(self) -> None:
        """Wait until there may be one more stream, and count it."""

    def left(self) -> None:
        """A stream that was counted is over."""

    async def wait(self) -> None:
        """Wait until bytes may pass; how many is known, and said, afterwards."""

    def charge(self, size: int) -> None:
        """Bytes have passed, in either direction."""


class MeteredStream(QuicStream):
    """A stream that waits for its connection's meter. What is not read yet holds the sender back, as always."""

    __slots__ = ("_meter",)
    _meter: StreamMeter

    def meter_by(self, meter: StreamMeter) -> None:
        """Count by this meter, which has admitted the stream."""
        self._meter = meter

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `QuicReceiveStream.receive_some`."""
        await self._meter.wait()
        data = await super().receive_some(max_bytes)
        self._meter.charge(len(data))
        return data

    def receive_nowait(self) -> None:
        """Return nothing: what there is waits for the meter."""

    async def send_all(self, data: Buffer, *, end: bool = False) -> None:
        """See `QuicSendStream.send_all`."""
        data = in_bytes(data)
        await self._meter.wait()
        if len(data) <= PIECE:
            await super().send_all(data, end=end)
            self._meter.charge(len(data))
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = view[start : start + PIECE]
            await self._meter.wait()
            await super().send_all(piece, end=end and start + PIECE >= len(view))
            self._meter.charge(len(piece))

    def send_nowait(self, data: Buffer, *, end: bool = False) -> int:
        """See `QuicSendStream.send_nowait`; it cannot wait, so what it sends holds back what follows."""
        accepted = super().send_nowait(data, end=end)
        self._meter.charge(accepted)
        return accepted

    def _leave(self, *, finish: bool) -> None:
        self._meter.left()
        super()._leave(finish=finish)
