"""`a2al-trio delegate`: a proof for each kind of owner, on the screen or in the agents file."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from a2al_trio.cli.commands import commands
from a2al_trio.host.agents_file import load_agents
from a2al_trio.identity import Identity, SigningKey, decode_delegation
from a2al_trio.identity.files import load_or_create_identity, write_private_file

CHAIN_OWNERS = {
    "--ethereum-key": "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A",
    "--paralism-key": "bc1qr78y59zz80dm3cwuk388r097pupwdguauuex7k4",
}
"""The addresses of the key 11...11 (spec 01 §11)."""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(commands, ["delegate", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(*arguments: str) -> str:
    result = CliRunner().invoke(commands, ["delegate", *arguments])
    assert result.exit_code == 2, result.output
    return re.sub(r"\s+", " ", result.output)


@pytest.fixture
def master(tmp_path: Path) -> Path:
    path = tmp_path / "master.key"
    load_or_create_identity(path)
    return path


def chain_key(directory: Path, text: str = "11" * 32) -> Path:
    path = directory / "chain.key"
    write_private_file(path, text.encode())
    return path


def test_a_new_key_is_authorised_by_an_ed25519_owner(master: Path) -> None:
    said = json.loads(run("--master", str(master), "--days", "30"))
    key = SigningKey.from_private_key(bytes.fromhex(said["operational_private_key_hex"]))
    agent = Identity.delegated(key, bytes.fromhex(said["delegation_proof_hex"]), now=time.time())
    assert str(agent.address) == said["aid"] == str(load_or_create_identity(master).address)
    proof = decode_delegation(agent.delegation or b"")
    assert proof.expires_at - proof.issued_at == 30 * 86_400


@pytest.mark.parametrize("option", CHAIN_OWNERS)
def test_a_given_key_is_authorised_by_a_chain_owner(tmp_path: Path, option: str) -> None:
    operational = SigningKey(bytes(32))
    said = json.loads(run(option, str(chain_key(tmp_path)), "--operational-key", operational.public_key.hex()))
    assert said["aid"] == CHAIN_OWNERS[option]
    assert "operational_private_key_hex" not in said
    Identity.delegated(operational, bytes.fromhex(said["delegation_proof_hex"]), now=time.time())


def test_an_agents_file_is_filled(tmp_path: Path, master: Path) -> None:
    agents = tmp_path / "agents.json"
    first = run("--master", str(master), "--agents", str(agents)).strip()
    second = run("--ethereum-key", str(chain_key(tmp_path)), "--agents", str(agents)).strip()
    loaded = load_agents(agents, now=time.time())
    assert [str(identity.address) for identity in loaded.identities] == [first, second]


def test_a_proof_without_end_is_warned_about(master: Path) -> None:
    result = CliRunner().invoke(commands, ["delegate", "--master", str(master), "--days", "0"])
    assert decode_delegation(bytes.fromhex(json.loads(result.stdout)["delegation_proof_hex"])).expires_at == 0
    assert result.exit_code == 0


def test_mistakes_say_the_fix(tmp_path: Path, master: Path) -> None:
    assert "one of --master, --ethereum-key and --paralism-key" in fails()
    assert "one of --master" in fails("--master", str(master), "--ethereum-key", str(master))
    assert "64 hex digits of an Ed25519" in fails("--master", str(master), "--operational-key", "abc")
    given = ("--operational-key", "00" * 32, "--agents", str(tmp_path / "a"))
    assert "leave out --operational-key" in fails("--master", str(master), *given)
    assert "there is no key file" in fails("--ethereum-key", str(tmp_path / "none"))
    for text in ("xyz", "11" * 31, "00" * 32):
        assert "does not hold a private key" in fails("--paralism-key", str(chain_key(tmp_path, text)))
    assert "make one with: a2al-trio id" in fails("--master", str(tmp_path / "none"))
