"""Answers that fit a datagram (spec 02 §12 and §15.2 item 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from a2al_trio.wire.bodies import encode_find_node_response, encode_find_value_response
from a2al_trio.wire.messages import MAX_DATAGRAM, MESSAGE_OVERHEAD

__all__ = ["RESPONSE_BODY_BUDGET", "fit_find_node_response", "fit_find_value_response"]

RESPONSE_BODY_BUDGET: Final = 1050
"""Bytes of body an answer aims for."""
_HARD_LIMIT = MAX_DATAGRAM - MESSAGE_OVERHEAD


def fit_find_node_response(nodes: Sequence[bytes], observed: bytes, *, budget: int = RESPONSE_BODY_BUDGET) -> bytes:
    """The body of a FIND_NODE_RESP with as many nodes as fit, nearest first; at least one is kept.

    `nodes` are encoded (`NodeInfo.encoded`). An empty list is written as null, as v0.2.0 writes it.
    """
    count = len(nodes)
    size = len(encode_find_node_response(nodes, observed))
    while count > 1 and size > budget:
        count -= 1
        size -= len(nodes[count])
    return encode_find_node_response(nodes[:count] or None, observed)


def fit_find_value_response(
    nodes: Sequence[bytes],
    observed: bytes,
    records: Sequence[bytes],
    *,
    budget: int = RESPONSE_BODY_BUDGET,
) -> bytes:
    """The body of a FIND_VALUE_RESP within the budget; always fits a datagram.

    Far nodes go first, then records from the front of the list, the oldest if in order of arrival. Only if one node and
    one record are too much for a datagram does the node go, and as the last resort the record.
    """
    node_count, first_record = len(nodes), 0
    size = len(encode_find_value_response(nodes, observed, records))
    while size > budget and node_count > 1:
        node_count -= 1
        size -= len(nodes[node_count])
    while size > budget and first_record < len(records) - 1:
        size -= len(records[first_record])
        first_record += 1
    kept = records[first_record:]
    if size > _HARD_LIMIT and node_count:
        size -= len(nodes[0])
        node_count = 0
    if size > _HARD_LIMIT:
        kept = ()
        node_count = min(1, len(nodes))
    return encode_find_value_response(nodes[:node_count] or None, observed, kept)
