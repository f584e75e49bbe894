"""Answers always fit a datagram, and keep what matters most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import (
    MAX_DATAGRAM,
    MESSAGE_OVERHEAD,
    RESPONSE_BODY_BUDGET,
    FindNodeResponse,
    FindValueResponse,
    NodeInfo,
    decode_message,
    fit_find_node_response,
    fit_find_value_response,
    seal_message,
)
from tests.wire.strategies import ALICE, NOW, record_of

OBSERVED = bytes(6)
V4 = NodeInfo.of(ALICE.address, SocketAddress("192.0.2.1", 4121))
V6 = NodeInfo.of(ALICE.address, SocketAddress("2001:db8::1", 4121))


def nodes_of(body: bytes, message_type: int = 4) -> tuple[NodeInfo, ...]:
    read = decode_message(seal_message(message_type, body, bytes(20), ALICE)).body
    assert isinstance(read, (FindNodeResponse, FindValueResponse))
    return read.nodes or ()


def test_as_many_nodes_as_the_specification_counts() -> None:
    """Spec 02 §12 and 03 §8.2."""
    assert len(nodes_of(fit_find_node_response([V4.encoded] * 16, OBSERVED))) == 15
    assert len(nodes_of(fit_find_node_response([V4.encoded] * 16, bytes(18)))) == 14
    assert len(nodes_of(fit_find_node_response([V6.encoded] * 16, OBSERVED))) == 12
    assert fit_find_node_response([], OBSERVED) == b"\xa2\x01\xf6\x02\x46" + OBSERVED


@given(
    st.lists(st.sampled_from([V4, V6]), max_size=16),
    st.sampled_from([bytes(6), bytes(18)]),
    st.lists(st.integers(0, 1100), max_size=6),
)
def test_any_answer_fits(nodes: list[NodeInfo], observed: bytes, sizes: list[int]) -> None:
    records = [record_of(0x03, number, NOW, 60, size) for number, size in enumerate(sizes)]
    body = fit_find_value_response([node.encoded for node in nodes], observed, [record.encoded for record in records])
    message = seal_message(6, body, bytes(20), ALICE)
    assert len(message) <= MAX_DATAGRAM
    answer = decode_message(message).body
    assert isinstance(answer, FindValueResponse)
    assert list(answer.records) == records[len(records) - len(answer.records) :]
    kept = answer.nodes or ()
    assert list(kept) == nodes[: len(kept)]
    if len(body) > RESPONSE_BODY_BUDGET:
        assert len(kept) <= 1
        assert len(answer.records) == 1


def test_the_node_goes_before_the_record() -> None:
    """Spec 02 §15.2 item 9: a big record alone still gets through, a bigger one is left out."""
    big = record_of(0x03, 1, NOW, 60, 890)
    only_record = fit_find_value_response([V4.encoded] * 3, OBSERVED, [big.encoded])
    assert len(only_record) <= MAX_DATAGRAM - MESSAGE_OVERHEAD
    assert nodes_of(only_record, 6) == ()
    huge = record_of(0x03, 1, NOW, 60, 1100)
    assert nodes_of(fit_find_value_response([V4.encoded] * 3, OBSERVED, [huge.encoded]), 6) == (V4,)
