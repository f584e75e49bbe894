from __future__ import annotations

import json

from a2al_trio.errors import CloseCause
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.frames import encode_connection_close, encode_varints
from a2al_trio.quic.qlog import QlogWriter

PEER = SocketAddress("192.0.2.1", 4433)


def written() -> tuple[QlogWriter, list[str]]:
    lines: list[str] = []
    return QlogWriter(lines.append, b"\x01\x02\x03\x04\x05\x06\x07\x08", True, PEER), lines


def records(lines: list[str]) -> list[dict[str, object]]:
    assert all(line.startswith("\x1e") and line.endswith("\n") for line in lines), "RFC 7464"
    return [json.loads(line[1:]) for line in lines]


def test_a_trace_begins_with_its_head() -> None:
    log, lines = written()
    log.packet_sent(1.5, 3, 7, b"\x01", 1252)
    head, event = records(lines)
    assert head["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert head["trace"]["common_fields"]["group_id"] == "0102030405060708"  # type: ignore[index]
    assert event == {
        "time": 1500.0,
        "name": "quic:packet_sent",
        "data": {
            "header": {"packet_type": "1RTT", "packet_number": 7},
            "raw": {"length": 1252},
            "frames": [{"frame_type": "ping"}],
        },
    }


def test_frames_are_described_without_their_data() -> None:
    log, lines = written()
    stream = b"\x0b\x04\x05hello"  # STREAM with length and FIN on stream 4
    log.packet_received(2.0, 3, 8, memoryview(stream + encode_varints(0x11, 4, 1000)), 60)
    frames = records(lines)[1]["data"]["frames"]  # type: ignore[index]
    assert frames == [
        {"frame_type": "stream", "stream_id": 4, "offset": 0, "raw": {"length": 5}, "fin": True},
        {"frame_type": "max_stream_data", "stream_id": 4, "maximum": 1000},
    ]


def test_a_payload_that_does_not_decode_is_still_logged() -> None:
    log, lines = written()
    log.packet_received(2.0, 0, 1, b"\x21", 50)
    assert records(lines)[1]["data"]["frames"][0]["frame_type"] == "unknown"  # type: ignore[index]


def test_only_changed_metrics_are_written() -> None:
    log, lines = written()
    log.metrics(1.0, smoothed_rtt=0.1, latest_rtt=0.1, window=12000, in_flight=0)
    log.metrics(1.1, smoothed_rtt=0.1, latest_rtt=0.1, window=12000, in_flight=0)
    log.metrics(1.2, smoothed_rtt=0.1, latest_rtt=0.09, window=12000, in_flight=0)
    assert [record["data"] for record in records(lines)[2:]] == [{"latest_rtt": 90.0}]


def test_losses_and_the_end() -> None:
    log, lines = written()
    log.packets_lost(1.0, 3, 5, 6)
    log.packet_sent(1.1, 3, 9, encode_connection_close(7, "bye", is_application=True), 40)
    log.ended(1.2, CloseCause.LOCAL, 7, "bye")
    found = records(lines)[1:]
    assert [record["name"] for record in found] == ["quic:packet_lost"] * 2 + [
        "quic:packet_sent",
        "quic:connection_closed",
    ]
    assert found[2]["data"]["frames"][0] == {  # type: ignore[index]
        "frame_type": "connection_close",
        "error_space": "application",
        "error_code": 7,
        "reason": "bye",
    }
    assert found[3]["data"] == {
        "owner": "local",
        "trigger": "closed here",
        "application_code": 7,
        "reason": "bye",
    }
