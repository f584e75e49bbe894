"""Golden cases of `key_files.json`: the encrypted key store, the node key, the agents and the peers file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from a2al_trio.identity import Address, KeyFileError, SigningKey, WrongPassphrase
from a2al_trio.identity.agents_file import decode_agents, encode_agents
from a2al_trio.identity.keystore import STORAGE_KEY, decrypt_seed, encrypt_seed
from a2al_trio.identity.node_key import decode_private_key, encode_private_key
from a2al_trio.identity.peers_file import decode_peers, encode_peers
from tests.vectors.deviations import FOREIGN_PUBLIC_HALF, Deviation
from tests.vectors.harness import Case, Document, agree

Item = Mapping[str, Any]


def cases(document: Document) -> Iterator[Case]:
    for section, check in CHECKS.items():
        for index, item in enumerate(document.get(section, ())):
            yield Case(section, f"{item.get('name', '')}[{index}]", partial(check, item))


def _encrypted_keystore(item: Item) -> Iterable[Deviation]:
    passphrase, blob = bytes.fromhex(item["passphrase"]), bytes.fromhex(item["blob"])
    entropy = io.BytesIO(bytes.fromhex(item["salt"]) + bytes.fromhex(item["nonce"])).read
    assert item["storage_key"] == STORAGE_KEY
    key = SigningKey(decrypt_seed(blob, passphrase))
    assert key.seed.hex() == item["seed"]
    assert key.public_key.hex() == item["public_key"]
    assert Address.from_public_key(key.public_key).hex() == item["address"]
    assert key.sign(bytes.fromhex(item["sign_message"])).hex() == item["sign_signature"]
    assert encrypt_seed(key.seed, passphrase, entropy=entropy) == blob
    return ()


def _encrypted_keystore_read(item: Item) -> Iterable[Deviation]:
    passphrase, blob = bytes.fromhex(item["passphrase"]), bytes.fromhex(item["blob"])
    outcome = agree(item, lambda: decrypt_seed(blob, passphrase), refusals=WrongPassphrase)
    assert outcome.value is None or outcome.value.hex() == item["seed"]
    return outcome.deviations


def _node_key_file(item: Item) -> Iterable[Deviation]:
    text = item["file_text"]
    outcome = agree(
        item,
        lambda: decode_private_key(text),
        refusals=KeyFileError,
        excuse=lambda: FOREIGN_PUBLIC_HALF if _has_foreign_half(text.strip()) else None,
    )
    if outcome.value is not None:
        assert outcome.value.private_key.hex() == encode_private_key(outcome.value) == item["private_key"]
        assert Address.from_public_key(outcome.value.public_key).hex() == item["address"]
    return outcome.deviations


def _agents_file(item: Item) -> Iterable[Deviation]:
    outcome = agree(item, lambda: decode_agents(item["file_text"]), refusals=KeyFileError)
    if outcome.value is None:
        return outcome.deviations
    expected = [entry for entry in item["entries"] if not _has_foreign_half(entry["op_private_key"])]
    entries = sorted(outcome.value.agents, key=lambda entry: str(entry.address))
    found = [
        {
            "aid": str(entry.address),
            "delegation_proof": entry.delegation.hex(),
            "has_profile": entry.profile is not None,
            "op_private_key": entry.key.private_key.hex(),
            "seq": entry.sequence,
            "service_tcp": entry.service_tcp,
            "service_topics": [service.topic for service in entry.services],
        }
        for entry in entries
    ]
    assert found == expected
    if item["name"].startswith("saved_"):
        assert json.loads(encode_agents(outcome.value.agents)) == json.loads(item["file_text"])
    return (FOREIGN_PUBLIC_HALF,) if len(expected) < len(item["entries"]) else ()


def _peers_file(item: Item) -> Iterable[Deviation]:
    assert encode_peers(item["saved"]) == item["file_text"]
    assert list(decode_peers(item["file_text"])) == item["loaded"]
    return ()


def _has_foreign_half(text: str) -> bool:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return False
    return len(raw) == 64 and SigningKey(raw[:32]).public_key != raw[32:]


CHECKS: dict[str, Callable[[Item], Iterable[Deviation]]] = {
    "encrypted_keystore": _encrypted_keystore,
    "encrypted_keystore_read": _encrypted_keystore_read,
    "node_key_file": _node_key_file,
    "agents_file": _agents_file,
    "peers_file": _peers_file,
}
