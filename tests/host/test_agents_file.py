"""The agents file: what a host registers of it, and what is written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2al_trio.host.agents_file import load_agents, store_agent
from a2al_trio.identity import Identity, KeyFileError, SigningKey, issue_delegation
from tests.host.world import identity

NOW = 1_800_000_000


def delegated(number: int, *, expires_at: int = 0) -> Identity:
    master, key = SigningKey(bytes(31) + b"\x50"), SigningKey(bytes([number]) * 32)
    proof = issue_delegation(master, key.public_key, issued_at=NOW - 10, expires_at=expires_at)
    return Identity(proof.agent, key, proof.encode())


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "agents.json"
    for agent in (identity(5), delegated(1)):
        store_agent(path, agent)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = load_agents(path, now=NOW)
    assert loaded.identities == (identity(5), delegated(1))
    assert loaded.skipped == ()


def test_a_renewed_delegation_replaces_the_key(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    store_agent(path, delegated(1))
    store_agent(path, delegated(2))
    assert load_agents(path, now=NOW).identities == (delegated(2),)


def test_services_and_sequence_numbers_stay(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    agent = delegated(1)
    store_agent(path, agent)
    path.write_text(
        path.read_text().replace('"seq": 0', '"seq": 7').replace('"service_tcp": ""', '"service_tcp": "a:1"')
    )
    store_agent(path, delegated(2))
    text = path.read_text()
    assert '"seq": 7' in text
    assert '"service_tcp": "a:1"' in text


def test_entries_that_peers_would_refuse_are_left_out_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    store_agent(path, delegated(1, expires_at=NOW + 100))
    store_agent(path, identity(5))
    loaded = load_agents(path, now=NOW + 1000)
    assert loaded.identities == (identity(5),)
    [reason] = loaded.skipped
    assert "has expired" in reason
    assert str(delegated(1).address) in reason


def test_damage_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "agents.json"
    store_agent(path, identity(5))
    whole = path.read_text()
    path.write_text(whole.replace(str(identity(5).address), "nobody"))
    with pytest.raises(KeyFileError, match="mend or remove them first"):
        store_agent(path, identity(6))
    assert len(load_agents(path, now=NOW).skipped) == 1
    for damaged in (b"{", b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(KeyFileError, match=r"agents.json.*restore it from a backup"):
            load_agents(path, now=NOW)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_agents(path, now=NOW)
    with pytest.raises(FileNotFoundError):
        load_agents(tmp_path / "none", now=NOW)
