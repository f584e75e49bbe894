"""Sovereign records: what an agent publishes under its own AID besides its endpoints (spec 04 §8.4, spec 02 §10.2)."""

from __future__ import annotations

import attrs

from a2al_trio.dht import Dht, Publication
from a2al_trio.errors import ConfigurationError, RecordInvalid
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.stamps import RecordStamps
from a2al_trio.identity import Address
from a2al_trio.wire import EndpointPayload, ProfilePayload, RecordType, SignedRecord, WireDecodeError, sign_record

__all__ = ["RECORD_TTL", "EndpointRecord", "ProfileRecord", "Records"]

RECORD_TTL = 3600
"""Seconds a record is valid unless said otherwise."""


@attrs.frozen
class EndpointRecord:
    """A resolved agent: the signed record and what it says."""

    record: SignedRecord
    payload: EndpointPayload

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The URLs at which the agent says it can be reached."""
        return tuple(self.payload.endpoints or ())

    def check(self, peer: Address, *, now: float) -> None:
        """Raise RecordInvalid unless this is a record of `peer` and not expired at `now` (Unix seconds)."""
        if self.record.address != peer:
            raise RecordInvalid(f"the record given is of {self.record.address}, not of {peer}")
        if now > self.record.expires_at:
            ago = now - self.record.expires_at
            raise RecordInvalid(f"the endpoint record of {peer} expired {ago:.0f} s ago; resolve the AID again")


@attrs.frozen
class ProfileRecord:
    """An agent's profile: the signed record and what it says."""

    record: SignedRecord
    payload: ProfilePayload


class Records:
    """Publishing and finding sovereign records: `host.records`.

    Publish an agent's endpoints first: nodes of newer releases keep other records of an agent only for minutes
    unless they know that this host speaks for it (spec 08 §2.3).
    """

    def __init__(self, *, dht: Dht, agents: AgentTable, stamps: RecordStamps) -> None:
        self._dht = dht
        self._agents = agents
        self._stamps = stamps

    async def publish(
        self,
        record_type: int,
        payload: bytes,
        *,
        agent: Address | None = None,
        ttl: int = RECORD_TTL,
        sequence: int | None = None,
    ) -> Publication:
        """Sign `payload` for an agent and publish it under the agent's AID, valid for `ttl` seconds.

        Without `sequence` the record replaces the last one of its type. Raises ConfigurationError for a type that
        is not sovereign (0x01 to 0x0F), a `ttl` below 1 or an unknown agent, StaleRecord if `sequence` is not above
        the one published before, WireEncodeError for a payload its type forbids.
        """
        _check_type(record_type)
        if ttl < 1:
            raise ConfigurationError(f"a ttl of {ttl} seconds; a record must live for at least 1")
        identity = self._agents.get(agent)
        held = self._dht.local_records(identity.node_id, record_type)
        above = max((record.sequence for record in held if record.address == identity.address), default=0)
        record = sign_record(
            identity,
            record_type,
            payload,
            sequence=self._stamps.second(above) if sequence is None else sequence,
            timestamp=self._stamps.timestamp(),
            ttl=ttl,
        )
        return await self._dht.publish(record)

    async def publish_profile(
        self, profile: ProfilePayload, *, agent: Address | None = None, ttl: int = RECORD_TTL
    ) -> Publication:
        """Publish what an agent says about itself; at most 700 bytes (PayloadTooLarge), better below 350."""
        return await self.publish(RecordType.PROFILE, profile.encode(), agent=agent, ttl=ttl)

    async def find(self, peer: Address, record_type: int = 0) -> list[SignedRecord]:
        """All records published under an agent's AID, of one type or (0) of all; none is an empty list."""
        return await self._dht.find_records(peer.node_id, record_type)

    async def find_profile(self, peer: Address) -> ProfileRecord:
        """The newest profile of an agent. Raises RecordNotFound, or RecordInvalid if it does not parse."""
        record = await self._dht.find_record(peer.node_id, RecordType.PROFILE)
        try:
            return ProfileRecord(record, ProfilePayload.decode(record.payload))
        except WireDecodeError as error:
            raise RecordInvalid(f"the profile of {peer} is malformed: {error}") from error


def _check_type(record_type: int) -> None:
    if not 1 <= record_type <= 0x0F:
        raise ConfigurationError(f"record type {record_type:#x} is not sovereign; use 0x01 to 0x0F")
