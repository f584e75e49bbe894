"""qlog traces of connections (draft-ietf-quic-qlog-main-schema, draft-ietf-quic-qlog-quic-events).

The core tells an observer what passes; it pays nothing when there is none. Frames are decoded here from the plaintext,
so the code that builds and takes packets knows nothing of logging. A trace is a JSON text sequence (RFC 7464), as the
draft recommends for streaming: tools such as qvis read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from a2al_trio.errors import CloseCause
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.ack_frame import AckFrame
from a2al_trio.quic.errors import FrameDecodeError
from a2al_trio.quic.frames import (
    ConnectionCloseFrame,
    CryptoFrame,
    DatagramFrame,
    Frame,
    PaddingFrame,
    StreamFrame,
    decode_frames,
)

__all__ = ["ConnectionObserver", "ObserverFactory", "QlogWriter"]

RECORD_SEPARATOR = "\x1e"
PACKET_TYPES = ("initial", "0RTT", "handshake", "1RTT")
"""By TLS level."""


class ConnectionObserver(Protocol):
    """What a connection reports to somebody who watches; times are those of the endpoint's clock."""

    def packet_sent(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        """A packet of `size` bytes leaves; `payload` is its plaintext, only valid during the call."""

    def packet_received(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        """A packet of `size` bytes arrived and was decrypted."""

    def packets_lost(self, now: float, level: int, first: int, last: int) -> None:
        """The packets with these numbers, both included, were declared lost."""

    def metrics(self, now: float, *, smoothed_rtt: float, latest_rtt: float, window: int, in_flight: int) -> None:
        """Round-trip times or the congestion window have changed."""

    def ended(self, now: float, by: CloseCause, code: int, reason: str) -> None:
        """The connection is over."""


ObserverFactory = Callable[[bytes, bool, SocketAddress], ConnectionObserver | None]
"""Makes the observer of a new connection from its original destination connection ID, whether we are the client, and
the peer's address; None watches nothing."""


@attrs.define
class QlogWriter:
    """Writes the trace of one connection; an `ObserverFactory` makes one for each.

    `write` takes text, for example the `write` of an open file. Data in frames is not logged, only its size.
    """

    write: Callable[[str], object]
    original_cid: bytes
    is_client: bool
    peer: SocketAddress
    _started: bool = False
    _last_metrics: dict[str, float] = attrs.Factory(dict)

    def packet_sent(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        """See `ConnectionObserver`."""
        self._packet(now, "quic:packet_sent", level, number, payload, size)

    def packet_received(self, now: float, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        """See `ConnectionObserver`."""
        self._packet(now, "quic:packet_received", level, number, payload, size)

    def packets_lost(self, now: float, level: int, first: int, last: int) -> None:
        """See `ConnectionObserver`."""
        for number in range(first, last + 1):
            header = {"packet_type": PACKET_TYPES[level], "packet_number": number}
            self._event(now, "quic:packet_lost", {"header": header})

    def metrics(self, now: float, *, smoothed_rtt: float, latest_rtt: float, window: int, in_flight: int) -> None:
        """See `ConnectionObserver`."""
        values = {
            "smoothed_rtt": round(smoothed_rtt * 1000, 3),
            "latest_rtt": round(latest_rtt * 1000, 3),
            "congestion_window": window,
            "bytes_in_flight": in_flight,
        }
        changed = {name: value for name, value in values.items() if self._last_metrics.get(name) != value}
        if changed:
            self._last_metrics.update(changed)
            self._event(now, "quic:recovery_metrics_updated", changed)

    def ended(self, now: float, by: CloseCause, code: int, reason: str) -> None:
        """See `ConnectionObserver`."""
        data: dict[str, object] = {"owner": "local" if by.name.startswith("LOCAL") else "remote", "trigger": by.value}
        if code:
            data["application_code" if by in (CloseCause.PEER_APP, CloseCause.LOCAL) else "connection_code"] = code
        if reason:
            data["reason"] = reason
        self._event(now, "quic:connection_closed", data)

    def _packet(self, now: float, name: str, level: int, number: int, payload: bytes | memoryview, size: int) -> None:
        try:
            frames = [_describe(frame) for frame in decode_frames(bytes(payload))]
        except FrameDecodeError as error:
            frames = [{"frame_type": "unknown", "reason": error.reason}]
        header = {"packet_type": PACKET_TYPES[level], "packet_number": number}
        self._event(now, name, {"header": header, "raw": {"length": size}, "frames": frames})

    def _event(self, now: float, name: str, data: Mapping[str, object]) -> None:
        if not self._started:
            self._started = True
            self._record(self._head())
        self._record({"time": round(now * 1000, 3), "name": name, "data": data})

    def _head(self) -> dict[str, object]:
        return {
            "file_schema": "urn:ietf:params:qlog:file:sequential",
            "serialization_format": "application/qlog+json-seq",
            "title": "a2al_trio",
            "trace": {
                "common_fields": {
                    "group_id": self.original_cid.hex(),
                    "time_format": "relative_to_epoch",
                    "reference_time": {"clock_type": "monotonic", "epoch": "unknown"},
                },
                "vantage_point": {"type": "client" if self.is_client else "server"},
                "event_schemas": ["urn:ietf:params:qlog:events:quic"],
                "title": f"connection with {self.peer}",
            },
        }

    def _record(self, value: dict[str, object]) -> None:
        self.write(f"{RECORD_SEPARATOR}{json.dumps(value, separators=(',', ':'))}\n")


def _describe(frame: Frame) -> dict[str, object]:
    """A frame as the QUIC event schema has it: names in snake case, sizes instead of data."""
    name = type(frame).__name__.removesuffix("Frame")
    kind = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
    match frame:
        case PaddingFrame():
            return {"frame_type": kind}
        case AckFrame():
            # qlog wants them smallest first.
            ranges = sorted([first, last] for first, last in frame.ranges)
            return {"frame_type": kind, "acked_ranges": ranges, "ack_delay": frame.delay}
        case StreamFrame():
            described: dict[str, object] = {"frame_type": kind, "stream_id": frame.stream_id, "offset": frame.offset}
            return described | {"raw": {"length": len(frame.data)}, "fin": frame.fin}
        case CryptoFrame():
            return {"frame_type": kind, "offset": frame.offset, "raw": {"length": len(frame.data)}}
        case DatagramFrame():
            return {"frame_type": kind, "raw": {"length": len(frame.data)}}
        case ConnectionCloseFrame():
            space = "application" if frame.is_application else "transport"
            return {"frame_type": kind, "error_space": space, "error_code": frame.code, "reason": frame.reason}
    values = attrs.asdict(frame, value_serializer=_plain)
    return {"frame_type": kind, **values}


def _plain(_instance: object, _attribute: object, value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
