"""Reading and writing TLS's presentation language (RFC 8446 §3): big-endian numbers and length-prefixed vectors."""

from __future__ import annotations

from a2al_trio.quic.tls.codepoints import AlertDescription
from a2al_trio.quic.tls.errors import TlsAlert

__all__ = ["Reader", "pack_vector"]


class Reader:
    """A cursor over one message; everything it cannot read is a decode_error alert."""

    __slots__ = ("_data", "_end", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._end = len(data)
        self._offset = 0
        self._what = what

    # `number` and `vector` repeat what `take` does: a handshake calls them a hundred times.

    def number(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes."""
        start = self._offset
        end = self._offset = start + size
        if end > self._end:
            raise self.error("is cut off")
        return int.from_bytes(self._data[start:end], "big")

    def take(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        start = self._offset
        end = self._offset = start + size
        if end > self._end:
            raise self.error("is cut off")
        return self._data[start:end]

    def vector(self, length_size: int, *, minimum: int = 0) -> bytes:
        """Read a vector whose byte count stands before it in `length_size` bytes."""
        start = self._offset + length_size
        size = int.from_bytes(self._data[self._offset : start], "big")
        end = self._offset = start + size
        if start > self._end or end > self._end:
            raise self.error("is cut off")
        if size < minimum:
            raise self.error("has a vector that is too short")
        return self._data[start:end]

    def numbers(self, length_size: int, size: int) -> tuple[int, ...]:
        """Read a non-empty vector of integers of `size` bytes each."""
        content = self.vector(length_size, minimum=size)
        if len(content) % size:
            raise self.error("has a list of uneven length")
        return tuple([int.from_bytes(content[i : i + size], "big") for i in range(0, len(content), size)])

    @property
    def offset(self) -> int:
        """How many bytes have been read."""
        return self._offset

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._offset == self._end

    def finish(self) -> None:
        """Raise unless everything has been read."""
        if self._offset != self._end:
            raise self.error("has bytes behind its end")

    def error(self, fault: str) -> TlsAlert:
        """Return the decode_error that names what is being read."""
        return TlsAlert(AlertDescription.DECODE_ERROR, f"{self._what} {fault}")


def pack_vector(length_size: int, content: bytes) -> bytes:
    """Return `content` with its byte count in front."""
    return len(content).to_bytes(length_size, "big") + content
