"""Reading and writing TLS's presentation language (RFC 8446 §3): big-endian numbers and length-prefixed vectors."""

from __future__ import annotations

from a2al_trio.quic.tls.codepoints import AlertDescription
from a2al_trio.quic.tls.errors import TlsAlert

__all__ = ["Reader", "pack_vector"]


class Reader:
    """A cursor over one message; everything it cannot read is a decode_error alert."""

    __slots__ = ("_data", "_offset", "_what")

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._offset = 0
        self._what = what

    def number(self, size: int) -> int:
        """Read an unsigned integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        end = self._offset + size
        if end > len(self._data):
            raise self.error("is cut off")
        piece = self._data[self._offset : end]
        self._offset = end
        return piece

    def vector(self, length_size: int, *, minimum: int = 0) -> bytes:
        """Read a vector whose byte count stands before it in `length_size` bytes."""
        content = self.take(self.number(length_size))
        if len(content) < minimum:
            raise self.error("has a vector that is too short")
        return content

    def numbers(self, length_size: int, size: int) -> tuple[int, ...]:
        """Read a non-empty vector of integers of `size` bytes each."""
        content = self.vector(length_size, minimum=size)
        if len(content) % size:
            raise self.error("has a list of uneven length")
        return tuple(int.from_bytes(content[i : i + size], "big") for i in range(0, len(content), size))

    def rest(self) -> bytes:
        """Read all that is left."""
        return self.take(len(self._data) - self._offset)

    @property
    def offset(self) -> int:
        """How many bytes have been read."""
        return self._offset

    @property
    def at_end(self) -> bool:
        """Whether everything has been read."""
        return self._offset == len(self._data)

    def finish(self) -> None:
        """Raise unless everything has been read."""
        if not self.at_end:
            raise self.error("has bytes behind its end")

    def error(self, fault: str) -> TlsAlert:
        """Return the decode_error that names what is being read."""
        return TlsAlert(AlertDescription.DECODE_ERROR, f"{self._what} {fault}")


def pack_vector(length_size: int, content: bytes) -> bytes:
    """Return `content` with its byte count in front."""
    return len(content).to_bytes(length_size, "big") + content
