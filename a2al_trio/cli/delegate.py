"""`a2al-trio delegate`: the owner of an AID lets an operational key act for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from a2al_trio.cli.keys import load_node_identity
from a2al_trio.cli.telling import json_option, print_json, warn
from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import (
    Address,
    DelegationProof,
    Identity,
    SigningKey,
    issue_chain_delegation,
    issue_delegation,
    secp256k1,
)
from a2al_trio.identity.files import read_private_file

__all__ = ["delegate"]

DAY = 86_400
FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--master", type=FILE, help="Key file of the AID's owner; see `id`.")
@click.option("--ethereum-key", type=FILE, help="File with the hex private key of an Ethereum address, the AID.")
@click.option("--paralism-key", type=FILE, help="File with the hex private key of a Paralism address, the AID.")
@click.option("--operational-key", metavar="HEX", help="Public key to authorise; without it, a new key is made.")
@click.option("--days", type=click.IntRange(min=0), default=365, show_default=True, help="Lifetime; 0: no end.")
@click.option("--agents", type=FILE, help="Agents file to put the new key and proof into, instead of printing them.")
@json_option
def delegate(
    master: Path | None,
    ethereum_key: Path | None,
    paralism_key: Path | None,
    operational_key: str | None,
    days: int,
    agents: Path | None,
    as_json: bool,
) -> None:
    """Let a key act for an AID whose own key stays safe.

    Prints JSON with the AID, the proof and, if it was made here, the operational private key; with --agents the AID.
    """
    if sum(option is not None for option in (master, ethereum_key, paralism_key)) != 1:
        raise ConfigurationError("name the owner's key with one of --master, --ethereum-key and --paralism-key")
    if agents is not None and operational_key is not None:
        raise ConfigurationError("--agents keeps an operational private key, so leave out --operational-key")
    key = SigningKey.generate(os.urandom)
    public = key.public_key if operational_key is None else _public_key(operational_key)
    proof = _issue(master, ethereum_key, paralism_key, public, days)
    if days == 0:
        warn("This proof never ends and cannot be revoked; prefer to renew one.")
    if agents is not None:
        from a2al_trio.host.agents_file import store_agent  # and with it a whole host

        store_agent(agents, Identity.delegated(key, proof.encode(), now=time.time()))
        if as_json:
            print_json(aid=str(proof.agent), agents=str(agents))
        else:
            click.echo(str(proof.agent))
        return
    said = {"aid": str(proof.agent), "delegation_proof_hex": proof.encode().hex()}
    if operational_key is None:
        said["operational_private_key_hex"] = key.private_key.hex()
    print_json(**said)


def _issue(
    master: Path | None, ethereum_key: Path | None, paralism_key: Path | None, operational_key: bytes, days: int
) -> DelegationProof:
    issued_at = int(time.time())
    expires_at = issued_at + days * DAY if days else 0
    if master is not None:
        owner = load_node_identity(master).key
        return issue_delegation(owner, operational_key, issued_at=issued_at, expires_at=expires_at)
    address: Address
    if ethereum_key is not None:
        private = _chain_key(ethereum_key)
        address = secp256k1.ethereum_address(secp256k1.public_key(private))
    else:
        assert paralism_key is not None, "one of the three is given"
        private = _chain_key(paralism_key)
        address = secp256k1.paralism_address(secp256k1.public_key(private))
    return issue_chain_delegation(address, private, operational_key, issued_at=issued_at, expires_at=expires_at)


def _chain_key(path: Path) -> bytes:
    try:
        text = read_private_file(path).decode("ascii").strip().removeprefix("0x")
        private = bytes.fromhex(text)
        if len(private) == 32:
            secp256k1.public_key(private)
            return private
    except FileNotFoundError:
        raise ConfigurationError(f"there is no key file {path}") from None
    except ValueError:
        pass  # neither text, nor hex, nor a number of the curve
    raise ConfigurationError(f"{path} does not hold a private key: 64 hex digits")


def _public_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigurationError("--operational-key must be the 64 hex digits of an Ed25519 public key")
    return key
