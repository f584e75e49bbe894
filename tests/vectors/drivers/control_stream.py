"""The first stream of a connection, written and read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from a2al_trio.identity import Address
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    AgentInfo,
    AgentInfoHint,
    ControlMessage,
    ControlReader,
    InvalidControlStream,
    InvalidRecord,
    ObservedAddress,
    RecordType,
    check_record,
    decode_record,
    decode_route_frame,
    encode_control,
    encode_observed,
    encode_route_frame,
)
from tests.vectors.canonical import is_canonical
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree

Json = dict[str, Any]
NOW = 1_800_000_000  # records kept in these files live beyond 2159, dropped ones expired in 2023


def cases(document: Document) -> Iterator[Case]:
    for case in document["route_frame"]:
        yield Case("route_frame", case["frame"], partial(route_frame, case))
    for case in document["dialer_messages"]:
        yield Case("dialer_messages", str(case["held_seq"]), partial(dialer_messages, case))
    for case in document["acceptor_messages"]:
        yield Case("acceptor_messages", case["dialer_ip"], partial(acceptor_messages, case))
    for case in document["read_dialer"]:
        yield Case("read_dialer", case["name"], partial(read_dialer, case))
    for case in document["read_acceptor"]:
        yield Case("read_acceptor", case["name"], partial(read_acceptor, case))


def route_frame(case: Json) -> tuple[Deviation, ...]:
    target = Address(bytes.fromhex(case["target_address"]))
    frame = encode_route_frame(target, legacy=case["magic"] == "a2r1")
    assert frame.hex() == case["frame"]
    assert decode_route_frame(frame).target == target
    assert decode_route_frame(frame).legacy == (case["magic"] == "a2r1")
    return ()


def dialer_messages(case: Json) -> tuple[Deviation, ...]:
    hint = AgentInfoHint(Address(bytes.fromhex(case["target_address"])), case["held_seq"])
    assert encode_control(hint).hex() == case["stream_bytes_after_route_frame"]
    return ()


def acceptor_messages(case: Json) -> tuple[Deviation, ...]:
    messages: list[ControlMessage] = [ObservedAddress(SocketAddress(case["dialer_ip"], case["dialer_port"]))]
    for encoded in case["local_records_cbor"]:
        record = decode_record(bytes.fromhex(encoded))
        if (
            record.record_type == RecordType.TOPIC
            and record.sequence > case["dialer_held_seq"]
            and len(record.encoded) <= 4096
        ):
            messages.append(AgentInfo(record))
    assert b"".join(map(encode_control, messages)).hex() == case["stream_bytes"]
    return ()


def read(data: bytes, into: list[ControlMessage]) -> None:
    """Everything up to the end of stream; what came before a fault stays in `into`."""
    reader = ControlReader()
    for byte in data:  # one by one, for the reader must not depend on how bytes arrive
        reader.feed(bytes((byte,)))
        if (message := reader.next_message()) is not None:
            into.append(message)
    reader.end()


def read_dialer(case: Json) -> tuple[Deviation, ...]:
    got: list[ControlMessage] = []
    judged = agree(case, lambda: read(bytes.fromhex(case["stream_bytes"]), got), refusals=InvalidControlStream)
    hints = [message.held_sequence for message in got if isinstance(message, AgentInfoHint)]
    assert (hints[-1] if hints else 0) == case["held_seq"]
    return judged.deviations


def read_acceptor(case: Json) -> tuple[Deviation, ...]:
    got: list[ControlMessage] = []
    judged = agree(case, lambda: read(bytes.fromhex(case["stream_bytes"]), got), refusals=InvalidControlStream)
    observed = [encode_observed(message.address).hex() for message in got if isinstance(message, ObservedAddress)]
    assert (observed[-1] if observed else None) == case["observed_wire"]
    kept = []
    for message in got:
        if isinstance(message, AgentInfo):
            try:
                check_record(message.record, now=NOW, tolerance=0)
            except InvalidRecord:
                continue
            kept.append(message.record.encoded.hex())
    assert kept == [record for record in case["records_cbor"] if is_canonical(bytes.fromhex(record))]
    return judged.deviations
