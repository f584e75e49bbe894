"""The frames of the signaling protocol: one CBOR map per WebSocket message (spec 06 §5, spec 08 §5).

Written strictly: definite lengths, the reference's key order, empty fields left out. Read leniently, as the
reference reads: any key order, indefinite lengths, tags skipped, unknown keys skipped, keys of the other case
accepted, and of a repeated key the first wins.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import attrs

from a2al_trio.signaling.errors import SignalingDecodeError

__all__ = ["MAX_MESSAGE_SIZE", "SUBPROTOCOL", "Frame", "FrameType", "decode_frame", "encode_frame"]

SUBPROTOCOL: Final = "a2al.ice.v1"
MAX_MESSAGE_SIZE: Final = 32_768
"""Bytes in the largest WebSocket message either side takes (spec 06 §4.1)."""

_MAX_DEPTH = 8
_MAX_ITEMS = 256


class FrameType(StrEnum):
    """The values of `t` that mean something to us; others are skipped by every reader."""

    REGISTER = "reg"
    ACKNOWLEDGE = "ack"
    INCOMING = "incoming"
    NO_AGENT = "noagent"
    CREDENTIALS = "cred"
    CANDIDATE = "cand"
    END_OF_CANDIDATES = "eoc"
    PUNCH_INIT = "punch-init"
    PUNCH_ACK = "punch-ack"
    PUNCH_GO = "punch-go"


@attrs.frozen(kw_only=True)
class Frame:
    """One frame; every field but `type` is empty unless the frame's type uses it.

    `addresses` ("ip:port" texts), `timestamp_ms` (since 1970) and `nat_type` belong to the synchronised punch of
    newer nodes (spec 08 §5.1).
    """

    type: str
    ufrag: str = ""
    pwd: str = attrs.field(default="", repr=False)
    candidate: str = ""
    agent: str = ""
    signature: str = ""
    room: str = ""
    caller: str = ""
    target: str = ""
    addresses: tuple[str, ...] = ()
    timestamp_ms: int = 0
    nat_type: int = 0


_TEXT_FIELDS: Final = {
    "t": "type",
    "u": "ufrag",
    "p": "pwd",
    "c": "candidate",
    "a": "agent",
    "s": "signature",
    "r": "room",
    "f": "caller",
    "g": "target",
}
_NUMBER_FIELDS: Final = {"ts": "timestamp_ms", "nt": "nat_type"}


def encode_frame(frame: Frame) -> bytes:
    """Return the bytes of `frame`, keys in the order the reference writes them."""
    out = bytearray()
    count = 0
    for key, name in _TEXT_FIELDS.items():
        text: str = getattr(frame, name)
        if text or key == "t":
            count += 1
            _put_text(out, key)
            _put_text(out, text)
    if frame.addresses:
        count += 1
        _put_text(out, "addrs")
        _put_head(out, 4, len(frame.addresses))
        for address in frame.addresses:
            _put_text(out, address)
    for key, name in _NUMBER_FIELDS.items():
        number: int = getattr(frame, name)
        if number:
            count += 1
            _put_text(out, key)
            _put_head(out, 0, number)
    return bytes([0xA0 | count]) + bytes(out)  # at most 12 keys, so one byte holds the count


def decode_frame(data: bytes | bytearray | memoryview) -> Frame:
    """Read one frame.

    Raises `SignalingDecodeError` for anything but a map of the right value types, or trailing bytes.
    """
    reader = _Reader(bytes(data))
    item = reader.item(0)
    if reader.position != len(reader.data):
        raise SignalingDecodeError(f"{len(reader.data) - reader.position} bytes follow the frame")
    if item is None:  # the reference takes CBOR null for an empty frame
        return Frame(type="")
    if not isinstance(item, _Map):
        raise SignalingDecodeError("a frame is a CBOR map")
    fields: dict[str, object] = {}
    for key, name in _TEXT_FIELDS.items():
        fields[name] = item.text(key)
    for key, name in _NUMBER_FIELDS.items():
        number = item.first(key)
        fields[name] = number if type(number) is int and number >= 0 else 0
    addresses = item.first("addrs")
    if isinstance(addresses, list):
        fields["addresses"] = tuple(address for address in addresses if isinstance(address, str))
    return Frame(**fields)  # type: ignore[arg-type]  # each was read as what its field takes


class _Map:
    """A decoded map with text and integer keys; of keys that differ in case only the first is kept."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def put(self, key: object, value: object) -> None:
        if isinstance(key, str):
            self.values.setdefault(key.lower(), value)
        elif not isinstance(key, int):
            raise SignalingDecodeError("map keys are texts")

    def first(self, key: str) -> object:
        return self.values.get(key)

    def text(self, key: str) -> str:
        value = self.first(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise SignalingDecodeError(f"the value of {key!r} is not a text")
        return value


class _Reader:
    """A bounded reader of the CBOR (RFC 8949) that may stand in a frame: it never builds more than it is given."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.items = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self.data):
            raise SignalingDecodeError("the frame is cut short")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def head(self) -> tuple[int, int | None]:
        """Read one head: major type and argument, `None` for an indefinite length or a break."""
        first = self.take(1)[0]
        major, info = first >> 5, first & 0x1F
        if info < 24:
            return major, info
        if info <= 27:
            return major, int.from_bytes(self.take(1 << (info - 24)), "big")
        if info == 31 and major in (2, 3, 4, 5, 7):
            return major, None
        raise SignalingDecodeError("malformed CBOR head")

    def item(self, depth: int) -> object:
        self.items += 1
        if depth > _MAX_DEPTH or self.items > _MAX_ITEMS:
            raise SignalingDecodeError("the frame is nested too deeply or has too many items")
        start = self.position
        major, argument = self.head()
        match major:
            case 0:
                return argument
            case 1:
                assert argument is not None
                return -1 - argument
            case 2 | 3:
                return self.string(major, argument)
            case 4:
                return self.array(argument, depth)
            case 5:
                return self.map(argument, depth)
            case 6:
                return self.item(depth + 1)  # a tag says nothing we need
            case _:
                return self.simple(start, argument)

    def string(self, major: int, length: int | None) -> object:
        if length is not None:
            raw = self.take(length)
        else:
            chunks = []
            while not self.at_break():
                chunk_major, chunk_length = self.head()
                if chunk_major != major or chunk_length is None:
                    raise SignalingDecodeError("malformed chunk of an indefinite string")
                chunk = self.take(chunk_length)
                self.decode_text(chunk, major)
                chunks.append(chunk)
            raw = b"".join(chunks)
        return self.decode_text(raw, major)

    @staticmethod
    def decode_text(raw: bytes, major: int) -> object:
        if major == 2:
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise SignalingDecodeError("a text is not UTF-8") from error

    def array(self, length: int | None, depth: int) -> list[object]:
        values: list[object] = []
        while self.more(length, len(values)):
            values.append(self.item(depth + 1))
        return values

    def map(self, length: int | None, depth: int) -> _Map:
        found = _Map()
        pairs = 0
        while self.more(length, pairs):
            key = self.item(depth + 1)
            found.put(key, self.item(depth + 1))
            pairs += 1
        return found

    def more(self, length: int | None, done: int) -> bool:
        return not self.at_break() if length is None else done < length

    def at_break(self) -> bool:
        if self.data[self.position : self.position + 1] == b"\xff":
            self.position += 1
            return True
        return False

    def simple(self, start: int, argument: int | None) -> object:
        first = self.data[start]
        if argument is None or (first == 0xF8 and argument < 32):
            raise SignalingDecodeError("malformed CBOR simple value")
        if first in (0xF4, 0xF5):
            return first == 0xF5
        return None if first in (0xF6, 0xF7) else float("nan")  # floats and other simple values mean nothing here


def _put_head(out: bytearray, major: int, argument: int) -> None:
    if argument < 24:
        out.append(major << 5 | argument)
        return
    width = next(width for width in (1, 2, 4, 8) if argument < 1 << (8 * width))
    out.append(major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width])
    out += argument.to_bytes(width, "big")


def _put_text(out: bytearray, text: str) -> None:
    raw = text.encode()
    _put_head(out, 3, len(raw))
    out += raw
