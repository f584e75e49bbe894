"""What the doctor says about networks of all kinds."""

from __future__ import annotations

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.nat.diagnosis import Findings, Level, StunFinding, conclude
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import NatType

HOME = Findings(
    local_address=SocketAddress("0.0.0.0", 4121),
    local_hosts=("192.168.1.5", "2001:db8::5"),
    outbound=("192.168.1.5",),
)
OUTSIDE = SocketAddress("203.0.113.5", 4121)
ONE_PORT = (StunFinding("one", OUTSIDE), StunFinding("two", OUTSIDE))
TWO_PORTS = (StunFinding("one", OUTSIDE), StunFinding("two", SocketAddress("203.0.113.5", 9)))
SILENT = (StunFinding("one", None, "does not answer"),)


def said(findings: Findings, subject: str) -> tuple[Level, str]:
    (verdict,) = [verdict for verdict in conclude(findings) if verdict.subject == subject]
    return verdict.level, verdict.text


def test_nobody_was_asked() -> None:
    assert said(HOME, "UDP")[0] is Level.UNKNOWN
    assert said(HOME, "IPv4") == (Level.UNKNOWN, "192.168.1.5 is behind a NAT; nobody was asked what it is seen as")
    assert said(HOME, "Being dialled")[0] is Level.UNKNOWN


def test_an_ordinary_home() -> None:
    home = attrs.evolve(HOME, stun=ONE_PORT, open_to_strangers=False)
    assert said(home, "IPv4") == (Level.FAIR, "192.168.1.5 is behind a NAT and seen as 203.0.113.5")
    assert said(home, "NAT")[0] is Level.GOOD
    assert said(home, "Strangers")[0] is Level.FAIR
    assert "through a hub by all but peers behind a symmetric NAT" in said(home, "Being dialled")[1]


def test_a_symmetric_nat() -> None:
    for found in (
        attrs.evolve(HOME, stun=TWO_PORTS),
        attrs.evolve(HOME, peers=5, nodes_asked=1, observed=OUTSIDE, nat_type=NatType.SYMMETRIC),
    ):
        assert said(found, "NAT")[0] is Level.BAD
        assert "relay" in said(found, "Being dialled")[1]


def test_one_server_does_not_tell_the_kind() -> None:
    assert said(attrs.evolve(HOME, stun=ONE_PORT[:1]), "NAT")[0] is Level.UNKNOWN


def test_a_full_cone_or_a_mapped_port() -> None:
    assert said(attrs.evolve(HOME, stun=ONE_PORT, open_to_strangers=True), "Being dialled")[0] is Level.GOOD
    mapped = attrs.evolve(HOME, stun=TWO_PORTS, mapped=OUTSIDE, mapped_by="PCP")
    assert said(mapped, "Port mapping") == (Level.GOOD, "the router forwards 203.0.113.5:4121 by PCP")
    assert said(mapped, "Being dialled")[0] is Level.GOOD


def test_no_mapping_is_explained() -> None:
    failed = attrs.evolve(HOME, mapping_failures=("UPnP: no router", "PCP: silence"))
    assert said(failed, "Port mapping") == (Level.FAIR, "none: UPnP: no router; PCP: silence")


def test_a_public_machine() -> None:
    server = attrs.evolve(HOME, local_hosts=("9.9.9.9", "203.0.113.5"), outbound=("9.9.9.9",))
    assert said(server, "IPv4")[0] is Level.GOOD
    assert said(server, "Being dialled")[1] == "should work, unless a firewall is in the way"
    asked = attrs.evolve(server, stun=ONE_PORT, open_to_strangers=True)
    assert said(asked, "IPv4") == (Level.GOOD, "203.0.113.5 is public and ours: there is no NAT")
    assert said(asked, "Being dialled")[0] is Level.GOOD
    assert not [verdict for verdict in conclude(asked) if verdict.subject == "NAT"]


def test_udp_is_blocked() -> None:
    blocked = attrs.evolve(HOME, stun=SILENT, nodes_asked=1)
    assert said(blocked, "UDP")[0] is Level.BAD
    assert "does not answer" in said(blocked, "UDP")[1]
    assert "TURN" in said(blocked, "Dialling")[1]


def test_a_dead_server_among_live_ones_is_told() -> None:
    level, text = said(attrs.evolve(HOME, stun=ONE_PORT + SILENT), "UDP")
    assert (level, text) == (Level.FAIR, "works; one: does not answer")


@pytest.mark.parametrize(
    ("outbound", "stun", "level"),
    [
        ((), (), Level.FAIR),
        (("fd00::1",), (), Level.FAIR),
        (("2001:db8::5",), (), Level.GOOD),
        (("2001:db8::5",), (StunFinding("one", SocketAddress("2001:db8::5", 1)),), Level.GOOD),
    ],
)
def test_ipv6(outbound: tuple[str, ...], stun: tuple[StunFinding, ...], level: Level) -> None:
    assert said(attrs.evolve(HOME, outbound=outbound, stun=stun), "IPv6")[0] is level


addresses = st.sampled_from([None, OUTSIDE, SocketAddress("203.0.113.5", 9), SocketAddress("2001:db8::5", 4)])


@given(
    st.builds(
        Findings,
        local_address=st.just(HOME.local_address),
        local_hosts=st.sampled_from([(), ("192.168.1.5",), ("203.0.113.5",)]),
        outbound=st.sampled_from([(), ("192.168.1.5",), ("203.0.113.5", "2001:db8::5"), ("fd00::1",)]),
        stun=st.lists(st.builds(StunFinding, st.sampled_from("ab"), addresses), max_size=3).map(tuple),
        open_to_strangers=st.sampled_from([None, True, False]),
        web_host=st.sampled_from([None, "203.0.113.5"]),
        mapped=st.sampled_from([None, OUTSIDE]),
        mapped_by=st.just("PCP"),
        nodes_asked=st.integers(0, 1),
        peers=st.integers(0, 3),
        observed=st.sampled_from([None, OUTSIDE]),
        nat_type=st.sampled_from(list(NatType)),
    )
)
def test_every_network_has_one_verdict_per_subject(findings: Findings) -> None:
    verdicts = conclude(findings)
    subjects = [verdict.subject for verdict in verdicts]
    assert len(set(subjects)) == len(subjects)
    assert subjects[-2:] == ["Dialling", "Being dialled"]
    assert all(verdict.text for verdict in verdicts)
    assert not [pair for pair in itertools.combinations(verdicts, 2) if pair[0] == pair[1]]
