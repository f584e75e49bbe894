"""Hypothesis strategies for wire values, and keys to sign them with."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    DhtPush,
    DhtPushAck,
    EndpointPayload,
    FindNode,
    FindNodeResponse,
    FindValue,
    FindValueResponse,
    NatProbeEcho,
    NatProbeRequest,
    NodeInfo,
    Ping,
    Pong,
    SignedRecord,
    Store,
    StoreResponse,
    WaitingMail,
    sign_record,
)

ALICE = Identity.from_seed(bytes(range(32)))
BOB = Identity.from_seed(bytes(range(32, 64)))
NOW = 1_700_000_000

addresses = st.binary(min_size=21, max_size=21).map(Address)
node_ids = st.binary(min_size=32, max_size=32).map(NodeId)
transaction_ids = st.binary(min_size=20, max_size=20)
uint8 = st.integers(0, 0xFF)
uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
ips = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
ports = st.integers(0, 65535)
observed = st.binary(min_size=6, max_size=6) | st.binary(min_size=18, max_size=18)
ids = st.binary(min_size=32, max_size=32)
socket_addresses = st.builds(lambda host, port: SocketAddress.of(str(host), port), st.ip_addresses(), ports)
short_texts = st.text(max_size=12)
texts = st.lists(short_texts, max_size=3).map(tuple)
nodes = st.builds(NodeInfo, addresses, node_ids, ips, ports)
record_types = st.integers(1, 0x1F) | st.integers(0x80, 0x8F)


@functools.cache
def record_of(record_type: int, sequence: int, timestamp: int, ttl: int, size: int | None) -> SignedRecord:
    payload = {
        0x01: EndpointPayload(("quic://192.0.2.1:4121",)).encode(),
        0x10: b"\xa1\x02\x61t",
    }.get(record_type, None if size is None else bytes(size))
    return sign_record(ALICE, record_type, payload, sequence=sequence, timestamp=timestamp, ttl=ttl)


records = st.builds(record_of, record_types, uint64, uint64, st.integers(1, 2**32 - 1), st.none() | st.integers(0, 300))
waiting_mail = st.builds(WaitingMail, uint8, st.integers(0, 1000), st.lists(ids, max_size=8).map(tuple))
node_lists = st.none() | st.lists(nodes, max_size=4).map(tuple)
bodies = st.one_of(
    st.builds(Ping, st.just(ALICE.address)),
    st.builds(Pong, st.just(ALICE.address), observed),
    st.builds(FindNode, node_ids),
    st.builds(FindNodeResponse, node_lists, observed),
    st.builds(FindValue, node_ids, uint8, st.booleans()),
    st.builds(FindValueResponse, node_lists, observed, st.lists(records, max_size=2).map(tuple), st.none() | records),
    st.builds(Store, records, st.none() | node_ids),
    st.builds(StoreResponse, st.booleans(), st.booleans(), uint8, st.lists(waiting_mail, max_size=2).map(tuple)),
    st.builds(NatProbeRequest, st.binary(min_size=8, max_size=8), observed),
    st.builds(NatProbeEcho, st.binary(min_size=8, max_size=8)),
    st.builds(DhtPush, node_ids, records),
    st.builds(DhtPushAck, node_ids, ids, st.booleans()),
)
