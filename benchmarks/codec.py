"""DHT messages: encoded and signed, parsed, verified and decoded; each kind per microsecond and per second.

The peer on the bare codec is cbor2, given the same job: decode, and make sure the bytes were canonical.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import cbor2

from a2al_trio import cbor
from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    Body,
    EndpointPayload,
    FindNode,
    FindNodeResponse,
    FindValueResponse,
    NodeInfo,
    Ping,
    Store,
    check_record,
    decode_message,
    decode_record,
    encode_message,
    parse_message,
    sign_record,
)
from benchmarks.framework import OURS, Benchmark, Measurement

__all__ = ["BENCHMARK"]

RUN_SECONDS = 0.005
RUNS = 6
NOW = 1_700_000_000
OBSERVED = bytes.fromhex("cb0071071019")
TRANSACTION_ID = bytes(range(20))
ME = Identity.from_seed(bytes(range(32)))
NODES = tuple(
    NodeInfo.of(Address(b"\xa0" + bytes([number]) * 20), SocketAddress(f"192.0.2.{number}", 4121))
    for number in range(15)
)
PAYLOAD = EndpointPayload(("quic://203.0.113.7:4121",)).encode()
RECORD = sign_record(ME, 0x01, PAYLOAD, sequence=7, timestamp=NOW, ttl=3600)
BODIES: Mapping[str, Body] = {
    "ping": Ping(ME.address),
    "find_node": FindNode(NodeId(bytes(32))),
    "find_node_response": FindNodeResponse(NODES, OBSERVED),
    "find_value_response": FindValueResponse(NODES[:1], OBSERVED, (RECORD,) * 3),
    "store": Store(RECORD),
}
MESSAGES = {name: encode_message(body, TRANSACTION_ID, ME) for name, body in BODIES.items()}


def cost_us(action: Callable[[], object]) -> float:
    """Microseconds of CPU per call, the best of several short runs."""
    count = 1
    while (elapsed := run_seconds(action, count)) < RUN_SECONDS:
        count *= 2
    return min(elapsed, *(run_seconds(action, count) for _ in range(RUNS))) / count * 1e6


def run_seconds(action: Callable[[], object], count: int) -> float:
    """Seconds of CPU for `count` calls."""
    calls = range(count)
    started = time.process_time()
    for _ in calls:
        action()
    return time.process_time() - started


def canonical_cbor2(data: bytes) -> object:
    """Decode with cbor2, insisting on the canonical form."""
    value = cbor2.loads(data)
    assert cbor2.dumps(value, canonical=True) == data
    return value


def measure() -> Measurement:
    """Cost of every step for every kind of message."""
    ours: dict[str, float] = {}
    peer: dict[str, float] = {}
    for name, message in MESSAGES.items():
        body = BODIES[name]
        ours[f"{name}_codec_us"] = cost_us(partial(cbor.decode, message))
        peer[f"{name}_codec_us"] = cost_us(partial(canonical_cbor2, message))
        ours[f"{name}_parse_us"] = cost_us(partial(parse_message, message))
        ours[f"{name}_encode_us"] = cost_us(body.encode)
        ours[f"{name}_verified_per_s"] = 1e6 / cost_us(partial(decode_message, message))
        ours[f"{name}_signed_per_s"] = 1e6 / cost_us(partial(encode_message, body, TRANSACTION_ID, ME))
    ours["record_verified_per_s"] = 1e6 / cost_us(lambda: check_record(decode_record(RECORD.encoded), now=NOW))
    return {OURS: ours, "cbor2": peer}


BENCHMARK = Benchmark("codec", "DHT messages encoded and signed, parsed, verified and decoded", measure)
