"""The JSON registry of a node's agents (spec 01 §4.5)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import attrs

from a2al_trio.identity.address import Address
from a2al_trio.identity.ed25519 import SigningKey
from a2al_trio.identity.errors import InvalidAddress, KeyFileError

__all__ = ["AgentEntry", "AgentsFile", "JsonValue", "ServiceEntry", "decode_agents", "encode_agents"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

_MAX_U64 = 2**64 - 1
_MAX_U32 = 2**32 - 1


@attrs.frozen
class ServiceEntry:
    """A service an agent publishes under a topic. `ttl` is in seconds, 0 for the default."""

    topic: str
    name: str = ""
    protocols: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    brief: str = ""
    meta: Mapping[str, JsonValue] | None = None
    ttl: int = 0


@attrs.frozen
class AgentEntry:
    """One registered agent: its address, operational key, delegation proof (may be empty) and what it offers.

    `sequence` is the last sequence number it published with, `service_tcp` the host:port its streams go to.
    """

    address: Address
    key: SigningKey
    delegation: bytes = attrs.field(default=b"", repr=False)
    sequence: int = 0
    service_tcp: str = ""
    services: tuple[ServiceEntry, ...] = ()
    profile: Mapping[str, JsonValue] | None = None


@attrs.frozen
class AgentsFile:
    """What a registry holds, with the reason for every entry that could not be used."""

    agents: tuple[AgentEntry, ...]
    skipped: tuple[str, ...] = ()


def decode_agents(text: str) -> AgentsFile:
    """Read a registry. Of an address that stands there twice, the last entry wins.

    Entries with a bad address, key or proof are skipped; anything else that is wrong makes the whole file
    `KeyFileError`.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeyFileError(f"the agents file is not valid JSON ({error}); restore it from a backup") from None
    if document is None:
        return AgentsFile(())
    fields = _Fields(document, "the agents file")
    agents: dict[Address, AgentEntry] = {}
    skipped = []
    for position, item in enumerate(fields.objects("agents")):
        try:
            entry = _decode_entry(item)
        except _SkipEntry as reason:
            skipped.append(f"agent {position + 1}: {reason}")
            continue
        agents.pop(entry.address, None)
        agents[entry.address] = entry
    return AgentsFile(tuple(agents.values()), tuple(skipped))


def encode_agents(agents: Iterable[AgentEntry]) -> str:
    """Text of a registry, to be written to a file of mode 0600: it holds private keys."""
    return json.dumps({"agents": [_encode_entry(entry) for entry in agents]}, indent=2, ensure_ascii=False)


class _SkipEntry(Exception):
    """One entry is unusable, the rest of the file is not."""


@attrs.frozen
class _Fields:
    """A JSON object read by the types its members must have; absent and null members are empty."""

    value: object
    where: str

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.value, dict):
            raise KeyFileError(f"{self.where} is not a JSON object")

    def get(self, name: str) -> object:
        assert isinstance(self.value, dict)
        return self.value.get(name)

    def text(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise KeyFileError(f"{name} in {self.where} is not text")
        return value

    def number(self, name: str, maximum: int) -> int:
        value = self.get(name)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
            raise KeyFileError(f"{name} in {self.where} is not a whole number from 0 to {maximum}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._list(name)
        if not all(isinstance(item, str) for item in value):
            raise KeyFileError(f"{name} in {self.where} is not a list of texts")
        return tuple(str(item) for item in value)

    def objects(self, name: str) -> list[_Fields]:
        return [_Fields(item, f"an item of {name}") for item in self._list(name)]

    def mapping(self, name: str) -> Mapping[str, JsonValue] | None:
        value = self.get(name)
        if value is not None and not isinstance(value, dict):
            raise KeyFileError(f"{name} in {self.where} is not a JSON object")
        return value

    def _list(self, name: str) -> list[object]:
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise KeyFileError(f"{name} in {self.where} is not a list")
        return value


def _decode_entry(fields: _Fields) -> AgentEntry:
    # Types first: a member of the wrong type spoils the file, a wrong value only its entry.
    address, key, delegation = (fields.text(name) for name in ("aid", "op_private_key_hex", "delegation_proof_hex"))
    sequence = fields.number("seq", _MAX_U64)
    service_tcp = fields.text("service_tcp")
    services = tuple(_decode_service(item) for item in fields.objects("services"))
    if fields.get("services") is None:
        services = tuple(ServiceEntry(topic) for topic in fields.texts("topics"))
    profile = fields.mapping("profile")
    try:
        return AgentEntry(
            address=Address.parse(address),
            key=SigningKey.from_private_key(_unhex(key)),
            delegation=_unhex(delegation),
            sequence=sequence,
            service_tcp=service_tcp,
            services=services,
            profile=profile,
        )
    except (InvalidAddress, ValueError) as error:
        raise _SkipEntry(str(error)) from None


def _unhex(text: str) -> bytes:
    if any(character.isspace() for character in text):
        raise ValueError("white space inside hex digits")  # which bytes.fromhex would take
    return bytes.fromhex(text)


def _decode_service(fields: _Fields) -> ServiceEntry:
    return ServiceEntry(
        topic=fields.text("topic"),
        name=fields.text("name"),
        protocols=fields.texts("protocols"),
        tags=fields.texts("tags"),
        brief=fields.text("brief"),
        meta=fields.mapping("meta"),
        ttl=fields.number("ttl", _MAX_U32),
    )


def _encode_entry(entry: AgentEntry) -> dict[str, object]:
    encoded: dict[str, object] = {
        "aid": str(entry.address),
        "service_tcp": entry.service_tcp,
        "op_private_key_hex": entry.key.private_key.hex(),
        "delegation_proof_hex": entry.delegation.hex(),
        "seq": entry.sequence,
    }
    if entry.services:
        encoded["services"] = [_encode_service(service) for service in entry.services]
    if entry.profile:
        encoded["profile"] = entry.profile
    return encoded


def _encode_service(service: ServiceEntry) -> dict[str, object]:
    return {name: value for name, value in attrs.asdict(service, recurse=False).items() if value}
