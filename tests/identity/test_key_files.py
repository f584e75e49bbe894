"""Key files and registries: round trips, errors that help, and what happens on disk."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.identity import Address, Identity, KeyFileError, SigningKey, WrongPassphrase
from a2al_trio.identity.agents_file import AgentEntry, ServiceEntry, decode_agents, encode_agents
from a2al_trio.identity.files import (
    load_identity,
    load_or_create_identity,
    read_private_file,
    write_private_file,
)
from a2al_trio.identity.keystore import decrypt_seed, encrypt_seed
from a2al_trio.identity.node_key import decode_private_key, encode_private_key
from a2al_trio.identity.peers_file import decode_peers, encode_peers

KEY = SigningKey(bytes(range(32)))
ENTRY = AgentEntry(Address.from_public_key(KEY.public_key), KEY)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_worked_example_of_an_encrypted_key() -> None:
    entropy = io.BytesIO(bytes(range(0x10)) + bytes(range(0x10, 0x28))).read
    blob = encrypt_seed(KEY.seed, b"correct horse battery staple", entropy=entropy)
    assert blob.hex() == (
        "6132616c2d6b31000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627"
        "3891bda3617faee45edfb5a4106742f3f7acfc0f16dc0a3ffac3dea09e67260841c8798b45f291534a5a2cebe514ecb3"
    )
    assert decrypt_seed(blob, b"correct horse battery staple") == KEY.seed
    with pytest.raises(WrongPassphrase, match="wrong passphrase"):
        decrypt_seed(blob, b"")


def test_an_identity_is_made_once_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "node.key"
    identity = load_or_create_identity(path)
    assert load_or_create_identity(path) == load_identity(str(path)) == identity
    assert path.read_text() == identity.key.private_key.hex()
    assert [mode(path), mode(path.parent), mode(path.parent.parent)] == [0o600, 0o700, 0o700]
    assert os.listdir(path.parent) == ["node.key"]


def test_an_identity_can_be_kept_under_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "identity.ed25519"
    identity = load_or_create_identity(path, passphrase=b"secret")
    assert path.stat().st_size == 95
    assert load_identity(path, passphrase=b"secret") == identity
    with pytest.raises(WrongPassphrase, match=r"identity.ed25519: wrong passphrase"):
        load_or_create_identity(path, passphrase=b"guess")
    with pytest.raises(KeyFileError, match="encrypted; give its passphrase"):
        load_identity(path)


def test_a_missing_identity_is_not_an_unusable_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_identity(tmp_path / "none")


def test_a_key_that_others_can_read_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    load_or_create_identity(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_identity(path)


def test_unreadable_and_unwritable_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"cannot read .*Is a directory"):
        read_private_file(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match=r"cannot write .*Not a directory"):
        write_private_file(tmp_path / "file" / "node.key", b"")


def test_writing_replaces_the_whole_file_or_refuses(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    path.write_text("old and longer")
    path.chmod(0o644)
    write_private_file(path, b"new")
    assert (path.read_bytes(), mode(path)) == (b"new", 0o600)
    with pytest.raises(KeyFileError, match="exists already"):
        write_private_file(path, b"other", replace=False)
    assert read_private_file(path) == b"new"
    assert os.listdir(tmp_path) == ["agents.json"]


@pytest.mark.parametrize("text", ["", "zz" * 64, "00" * 32, " 0x" + "00" * 64, "0" * 127, "\ufeff" + "00" * 64])
def test_a_damaged_key_text_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError, match="128 hex digits"):
        decode_private_key(text)


def test_a_foreign_public_half_is_refused() -> None:
    with pytest.raises(KeyFileError, match="public half"):
        decode_private_key(KEY.seed.hex() + bytes(32).hex())
    assert decode_private_key(f"\t{encode_private_key(KEY).upper()}\r\n") == KEY


def test_agents_round_trip() -> None:
    service = ServiceEntry("svc/x", "name", ("http",), ("tag",), "brief", {"a": 1.5, "b": [None]}, 3600)
    full = AgentEntry(
        Address(b"\xa3" + bytes(range(20))),
        KEY,
        delegation=b"proof",
        sequence=2**64 - 1,
        service_tcp="127.0.0.1:80",
        services=(service, ServiceEntry("t2")),
        profile={"name": "é"},
    )
    text = encode_agents([ENTRY, full])
    assert decode_agents(text).agents == (ENTRY, full)
    assert text.startswith('{\n  "agents": [\n    {\n      "aid": "A056475aa75463474C0285df5Dbf2bcAB73Da65135",')


def test_unusable_agents_are_skipped_and_named() -> None:
    good = json.loads(encode_agents([ENTRY]))["agents"][0]
    bad = [
        {**good, "aid": "junk"},
        {**good, "op_private_key_hex": "00"},
        {**good, "op_private_key_hex": (KEY.seed + bytes(32)).hex()},
        {**good, "delegation_proof_hex": "a b"},
    ]
    found = decode_agents(json.dumps({"agents": [*bad, good]}))
    assert found.agents == (ENTRY,)
    assert [reason.split(":")[0] for reason in found.skipped] == ["agent 1", "agent 2", "agent 3", "agent 4"]
    assert "public half" in found.skipped[2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("7", "the agents file is not a JSON object"),
        ('{"agents": 7}', "agents in the agents file is not a list"),
        ('{"agents": [7]}', "an item of agents is not a JSON object"),
        ('{"agents": [{"aid": 7}]}', "aid in an item of agents is not text"),
        ('{"agents": [{"seq": 1.5}]}', "seq in an item of agents is not a whole number"),
        ('{"agents": [{"seq": 18446744073709551616}]}', "seq in an item of agents is not a whole number"),
        ('{"agents": [{"services": [{"protocols": [1]}]}]}', "protocols in an item of services is not a list of"),
        ('{"agents": [{"profile": []}]}', "profile in an item of agents is not a JSON object"),
    ],
)
def test_a_malformed_registry_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        decode_agents(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["agents", "aid", "seq", "services", "topics", "peers", "profile", "op_private_key_hex"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values.map(json.dumps) | st.text(max_size=40))
def test_any_text_is_a_registry_or_refused(text: str) -> None:
    for decode in (decode_agents, decode_peers):
        with contextlib.suppress(KeyFileError):
            decode(text)


def test_peers_round_trip_up_to_their_limit() -> None:
    peers = tuple(f"192.0.2.{number}:4121" for number in range(70))
    assert decode_peers(encode_peers(peers)) == peers[:64]
    assert decode_peers("{}") == decode_peers("null") == ()
    for text in ("", "[]", '{"peers": 7}', '{"peers": [7]}', "[" * 100_000):
        with pytest.raises(KeyFileError, match="remove it"):
            decode_peers(text)


def test_the_seed_of_an_identity_is_never_shown() -> None:
    assert KEY.seed.hex() not in repr(Identity.from_key(KEY)) + repr(ENTRY)
