"""The table of agents: certificates that are renewed, proofs that are checked, names that mean an agent."""

from __future__ import annotations

import pytest

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.agents import AgentTable
from a2al_trio.identity import Identity, SigningKey, certificate_renewal_time, issue_delegation, peer_address
from tests.host.world import identity

DAY = 86_400.0
NODE, AGENT = identity(1), identity(2)


class Calendar:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def agents(calendar: Calendar) -> AgentTable:
    return AgentTable(NODE, unix_time=calendar, tolerance=60)


def delegated(calendar: Calendar, *, lifetime: float) -> Identity:
    master, key = SigningKey(bytes(31) + b"\x50"), SigningKey(bytes(31) + b"\x51")
    now = int(calendar.now)
    proof = issue_delegation(master, key.public_key, issued_at=now, expires_at=int(now + lifetime))
    return Identity(proof.agent, key, proof.encode())


def test_certificates_are_renewed_before_they_age(agents: AgentTable, calendar: Calendar) -> None:
    agents.register(AGENT)
    first = agents.credentials(AGENT.address)
    assert agents.credentials(AGENT.address) is first, "one is kept while it is good"
    calendar.now = certificate_renewal_time(first.chain[0]) - 1
    assert agents.credentials(AGENT.address) is first
    calendar.now += 2
    second = agents.select_credentials(str(AGENT.address))
    assert second.chain != first.chain
    assert peer_address(second.chain, now=calendar.now) == AGENT.address
    assert certificate_renewal_time(second.chain[0]) > calendar.now + 30 * DAY


def test_what_peers_would_refuse_is_not_registered(agents: AgentTable, calendar: Calendar) -> None:
    agent = delegated(calendar, lifetime=DAY)
    calendar.now += 2 * DAY
    with pytest.raises(ConfigurationError, match=r"let the owner of .* issue a new delegation"):
        agents.register(agent)
    assert agents.addresses == {NODE.address}


def test_an_agent_is_registered_once_and_the_default_stays(agents: AgentTable) -> None:
    agents.register(AGENT)
    with pytest.raises(ConfigurationError, match="registered already"):
        agents.register(AGENT)
    agents.unregister(NODE.address)
    agents.unregister(identity(9).address)
    assert agents.addresses == {NODE.address, AGENT.address}
    agents.unregister(AGENT.address)
    assert agents.addresses == {NODE.address}
    with pytest.raises(ConfigurationError, match="register it first"):
        agents.get(AGENT.address)


@pytest.mark.parametrize("shown", [str, lambda address: str(address).lower()])
def test_names_mean_agents(agents: AgentTable, shown: type[str]) -> None:
    agents.register(AGENT)
    assert agents.named(shown(AGENT.address)) == AGENT.address
    for name in (None, "", "www.example.com", str(identity(9).address)):
        assert agents.named(name) == NODE.address
