"""What the first bytes of a dialer's stream say it is, and the heads of the kinds we speak (spec 08 §4)."""

from __future__ import annotations

import enum
import struct
from typing import Final

import attrs

from a2al_trio.wire.control import AccessToken, KeysDone, encode_control
from a2al_trio.wire.errors import InvalidControlStream, InvalidRecord, WireEncodeError
from a2al_trio.wire.records import RecordCategory, SignedRecord, decode_record

__all__ = [
    "MAIL_ACCEPTED",
    "MAX_MAIL_RECORD",
    "STREAM_MAGIC_SIZE",
    "MailDelivery",
    "MailDeliveryReader",
    "StreamErrorCode",
    "StreamKind",
    "classify_stream",
    "encode_mail_delivery",
    "encode_service_start",
]

STREAM_MAGIC_SIZE: Final = 4
MAX_MAIL_RECORD: Final = 65_536
MAIL_ACCEPTED: Final = b"\x01"
"""The answer to a mail delivery that was taken, or was known already; a bad one is answered by nothing."""
_MAIL_HEAD = struct.Struct(">32sI")


class StreamErrorCode(enum.IntEnum):
    """Application error codes on agent streams (RESET_STREAM and STOP_SENDING)."""

    ACCESS_DENIED = 0x41
    NO_SERVICE = 0x42
    SERVICE_UNREACHABLE = 0x43


class StreamKind(enum.Enum):
    """The kinds of streams a dialer opens, by their first four bytes."""

    RAW = b""
    """Service bytes from the first one on, these four included."""
    MAIL = b"a2mb"
    SERVICE = b"a2s1"
    CONTENT = b"a2cs"
    ENVELOPE = b"a2en"
    GROUP = b"a2gp"
    UNKNOWN = b"a2"
    """A kind of a newer version: close the stream, never hand it to a service."""


_BY_MAGIC = {kind.value: kind for kind in StreamKind}


def classify_stream(start: bytes, *, finished: bool = False) -> StreamKind | None:
    """The kind of a stream that begins with `start`; None while more bytes may decide.

    Decides as early as it can: a stream whose first byte is not "a" is raw at once. `finished` says no more will come.
    """
    if not start.startswith(b"a2"[: len(start)]):
        return StreamKind.RAW
    if len(start) < STREAM_MAGIC_SIZE:
        return StreamKind.RAW if finished else None
    magic = start[:STREAM_MAGIC_SIZE]
    if not all(0x21 <= byte <= 0x7E for byte in magic):  # a magic is printable; "a2 LOGIN" is somebody's protocol
        return StreamKind.RAW
    return _BY_MAGIC.get(magic, StreamKind.UNKNOWN)


def encode_service_start(token: str = "") -> bytes:
    """What a dialer sends on a service stream before service bytes: magic, a token if any, and that this was all."""
    ticket = encode_control(AccessToken(token)) if token else b""
    return StreamKind.SERVICE.value + ticket + encode_control(KeysDone())


@attrs.frozen
class MailDelivery:
    """A mailbox record delivered over a connection, under its name; its signature is not checked yet."""

    message_id: bytes
    record: SignedRecord


def encode_mail_delivery(record: SignedRecord) -> bytes:
    """A whole mail delivery, magic included. Raises WireEncodeError for anything but mail."""
    if record.category is not RecordCategory.MAILBOX:
        raise WireEncodeError(f"a record of type {record.record_type:#04x} is no mail")
    return StreamKind.MAIL.value + _MAIL_HEAD.pack(record.payload_id, len(record.encoded)) + record.encoded


class MailDeliveryReader:
    """Reads what follows the magic of a mail delivery as it comes in; holds at most one record."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> MailDelivery | None:
        """Take more bytes; the delivery once it is complete. Raises InvalidControlStream or InvalidRecord."""
        self._buffer += data
        if len(self._buffer) < _MAIL_HEAD.size:
            return None
        message_id, length = _MAIL_HEAD.unpack_from(self._buffer)
        if length > MAX_MAIL_RECORD:
            raise InvalidControlStream(f"a mail of {length} bytes, more than {MAX_MAIL_RECORD}")
        excess = len(self._buffer) - _MAIL_HEAD.size - length
        if excess < 0:
            return None
        if excess:
            raise InvalidControlStream("bytes after the mail")
        record = decode_record(bytes(self._buffer[_MAIL_HEAD.size :]))
        if record.category is not RecordCategory.MAILBOX or record.payload_id != message_id:
            raise InvalidRecord("the record is no mail, or not the one that was announced")
        return MailDelivery(message_id, record)
