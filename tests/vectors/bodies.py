"""Between the JSON fields of vector files and the package's message bodies."""

from __future__ import annotations

from typing import Any

import cbor2

from a2al_trio.identity import Address, NodeId, SigningKey
from a2al_trio.wire import (
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
    decode_record,
)
from a2al_trio.wire.bodies import Body
from a2al_trio.wire.errors import UnknownMessageType, WireEncodeError

__all__ = ["Careless", "body_of", "json_of", "json_of_record", "without_empty"]

Json = dict[str, Any]


class Careless:
    """A publisher that claims an address without having checked that it may."""

    def __init__(self, key: SigningKey, address: str, delegation: str | None = None) -> None:
        self.key = key
        self.address = Address(bytes.fromhex(address))
        self.public_key = key.public_key
        self.delegation = bytes.fromhex(delegation) if delegation else None

    def sign(self, message: bytes) -> bytes:
        return self.key.sign(message)


def body_of(kind: int, fields: Json) -> Body:
    """The body a caller would build; like the classes themselves it does not check lengths yet."""
    match kind:
        case 1:
            return Ping(_address(fields["address"]))
        case 2:
            return Pong(_address(fields["address"]), _bytes(fields["observed_addr"]))
        case 3:
            return FindNode(_node_id(fields["target"]))
        case 4:
            return FindNodeResponse(_nodes(fields["nodes"]), _bytes(fields["observed_addr"]))
        case 5:
            return FindValue(_node_id(fields["target"]), fields["rec_type"])
        case 6:
            return FindValueResponse(
                _nodes(fields["nodes"]),
                _bytes(fields["observed_addr"]),
                tuple(_record(each) for each in fields["records"] or ()),
                _record(fields["record"]) if fields["record"] else None,
            )
        case 7:
            return Store(_record(fields["record"]), _node_id(fields["key"]) if fields["key"] else None)
        case 8:
            return StoreResponse(fields["stored"], fields["already_had"], fields["reason"])
        case 9:
            return NatProbeRequest(_bytes(fields["token"]), _bytes(fields["claimed_addr"]))
        case 10:
            return NatProbeEcho(_bytes(fields["token"]))
    raise UnknownMessageType(f"type {kind}")


def _bytes(text: str | None) -> bytes:
    return bytes.fromhex(text or "")


def _address(text: str) -> Address:
    raw = bytes.fromhex(text)
    if len(raw) != 21:
        raise WireEncodeError("no address")
    return Address(raw)


def _node_id(text: str) -> NodeId:
    raw = bytes.fromhex(text)
    if len(raw) != 32:
        raise WireEncodeError("no NodeID")
    return NodeId(raw)


def _nodes(nodes: list[Json] | None) -> tuple[NodeInfo, ...] | None:
    if nodes is None:
        return None
    return tuple(
        NodeInfo(_address(node["address"]), _node_id(node["node_id"]), bytes.fromhex(node["ip"]), node["port"])
        for node in nodes
    )


def _record(fields: Json) -> SignedRecord:
    """Records in bodies were signed elsewhere, so they come in by their encoding."""
    delegation = fields["delegation"]
    encoded: dict[int, Any] = {
        1: bytes.fromhex(fields["address"]),
        2: fields["rec_type"],
        3: None if fields["payload"] is None else bytes.fromhex(fields["payload"]),
        4: fields["seq"],
        5: fields["timestamp"],
        6: fields["ttl"],
        7: bytes.fromhex(fields["pubkey"]),
        8: bytes.fromhex(fields["signature"]),
    }
    if delegation:
        encoded[9] = bytes.fromhex(delegation)
    return decode_record(cbor2.dumps(encoded, canonical=True))


def json_of(body: Body) -> Json:
    """A body as the files show it, with nothing, empty and null all shown as None."""
    match body:
        case Ping():
            shown: Json = {"address": body.address.hex()}
        case Pong():
            shown = {"address": body.address.hex(), "observed_addr": body.observed.hex()}
        case FindNode():
            shown = {"target": body.target.hex()}
        case FindNodeResponse():
            shown = {"nodes": _shown_nodes(body.nodes), "observed_addr": body.observed.hex()}
        case FindValue():
            shown = {"target": body.target.hex(), "rec_type": body.record_type}
        case FindValueResponse():
            shown = {
                "nodes": _shown_nodes(body.nodes),
                "observed_addr": body.observed.hex(),
                "record": body.record and json_of_record(body.record),
                "records": [json_of_record(record) for record in body.records],
            }
        case Store():
            shown = {"record": json_of_record(body.record), "key": body.key.hex() if body.key else None}
        case StoreResponse():
            shown = {"stored": body.stored, "already_had": body.already_had, "reason": body.reason}
        case NatProbeRequest():
            shown = {"token": body.token.hex(), "claimed_addr": body.claimed.hex()}
        case NatProbeEcho():
            shown = {"token": body.token.hex()}
        case _:
            raise AssertionError(body)
    plain = without_empty(shown)
    assert isinstance(plain, dict)
    return plain


def without_empty(value: object) -> object:
    """The value with empty texts and lists shown as None, at every level."""
    if isinstance(value, dict):
        return {key: without_empty(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_empty(item) for item in value] or None
    return None if value == "" else value


def _shown_nodes(nodes: tuple[NodeInfo, ...] | None) -> list[Json] | None:
    if nodes is None:
        return None
    return [
        {"address": node.address.hex(), "node_id": node.node_id.hex(), "ip": node.ip.hex(), "port": node.port}
        for node in nodes
    ]


def json_of_record(record: SignedRecord) -> Json:
    """A record as the files show it."""
    return {
        "address": record.address.hex(),
        "rec_type": record.record_type,
        "payload": record.payload.hex(),
        "seq": record.sequence,
        "timestamp": record.timestamp,
        "ttl": record.ttl,
        "pubkey": record.public_key.hex(),
        "signature": record.signature.hex(),
        "delegation": record.delegation.hex() if record.delegation else None,
    }
