"""Messages as the reference signs them, and values it refuses to sign."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from a2al_trio.identity import Identity
from a2al_trio.wire import WireDecodeError, WireEncodeError, decode_message, parse_message, seal_message
from tests.vectors.bodies import body_of, json_of, without_empty
from tests.vectors.deviations import Deviation
from tests.vectors.harness import Case, Document, agree

Json = dict[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for case in document["sign"]:
        yield Case("sign", case["name"], partial(sign, case))
    for case in document["sign_reject"]:
        yield Case("sign_reject", case["name"], partial(sign_reject, case))


def seal(case: Json, signer: Identity) -> bytes:
    header = case["header"]
    return seal_message(
        header["msg_type"],
        body_of(header["msg_type"], case["body"]).encode(),
        bytes.fromhex(header["tx_id"] or ""),
        signer,
        version=header["version"],
        features=header["features"],
    )


def sign(case: Json) -> tuple[Deviation, ...]:
    signer = Identity.from_seed(bytes.fromhex(case["seed"]))
    header, expected = case["header"], bytes.fromhex(case["message"])
    assert signer.public_key.hex() == case["public_key"]
    assert body_of(header["msg_type"], case["body"]).encode().hex() == case["body_cbor"]
    assert seal(case, signer) == expected
    parsed, message = parse_message(expected), decode_message(expected)
    assert (parsed.version, parsed.features) == (header["version"], header["features"])
    assert (message.message_type, message.transaction_id.hex()) == (header["msg_type"], header["tx_id"])
    assert json_of(message.body) == without_empty(
        case["body"] | ({} if header["msg_type"] != 7 else {"key": case["body"]["key"]})
    )
    assert (message.sender_key, message.sender) == (signer.public_key, signer.address)
    assert message.body.message_type.name == case["message_type_name"].replace("RESP", "RESPONSE").replace(
        "REQ", "REQUEST"
    )
    return ()


def sign_reject(case: Json) -> tuple[Deviation, ...]:
    signer = Identity.from_seed(bytes(32))
    return agree(case, lambda: seal(case, signer), refusals=(WireEncodeError, WireDecodeError)).deviations
