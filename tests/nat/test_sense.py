"""The behaviour table of spec 05 §12 and what goes beyond it (§14)."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.identity import NodeId
from a2al_trio.nat.sense import MAX_VOTES, PROBE_LIFETIME, VOTE_LIFETIME, NatSense, News, reachability_hint
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import NatType, is_public

A = SocketAddress("203.0.113.5", 5001)
B = SocketAddress("203.0.113.5", 6002)


def reporter(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


def source(network: int, host: int = 1) -> SocketAddress:
    return SocketAddress(f"100.{network}.0.{host}", 4121)


def vote(sense: NatSense, address: SocketAddress, *reporters: int, now: float = 0.0) -> None:
    for number in reporters:
        sense.observe(reporter(number), address, now)


def test_one_vote_is_enough_if_configured() -> None:
    sense = NatSense(1)
    vote(sense, A, 1)
    assert sense.trusted(0) == A
    sense.clear_votes()
    assert sense.trusted(0) is None


def test_one_vote_is_not_enough_by_default() -> None:
    sense = NatSense(0)
    assert sense.min_agreeing == 3
    vote(sense, A, 1)
    assert sense.trusted(0) is None


def test_three_agree_and_the_probe_decides() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2, 3)
    assert sense.nat_type(0) is NatType.RESTRICTED
    sense.set_probe_result(A, True, 0)
    assert sense.nat_type(0) is NatType.FULL_CONE
    sense.set_probe_result(A, False, 0)
    assert sense.nat_type(0) is NatType.RESTRICTED
    sense.set_probe_result(A, True, 0)
    vote(sense, A, 1, 2, 3, now=PROBE_LIFETIME)
    assert sense.nat_type(PROBE_LIFETIME + 60) is NatType.RESTRICTED


def test_bound_to_a_public_address() -> None:
    sense = NatSense()
    sense.bind_public = True
    assert sense.nat_type(0) is NatType.FULL_CONE
    sense.set_probe_result(A, False, 0)
    assert sense.nat_type(0) is NatType.RESTRICTED, "a firewall is before us all the same"


def test_seen_with_the_address_of_an_interface() -> None:
    sense = NatSense()
    sense.local_hosts = frozenset({A.host})
    assert sense.nat_type(0) is NatType.UNKNOWN
    vote(sense, A, 1, 2, 3)
    assert sense.nat_type(0) is NatType.FULL_CONE


def test_a_second_port_needs_a_second_reporter() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2, 3)
    vote(sense, B, 4)
    assert sense.nat_type(0) is NatType.RESTRICTED
    vote(sense, B, 1)
    assert sense.nat_type(0) is NatType.SYMMETRIC
    assert reachability_hint(sense.nat_type(0))


def test_two_ports_with_a_reporter_each_suffice_at_threshold_one() -> None:
    sense = NatSense(1)
    vote(sense, A, 1)
    vote(sense, B, 2)
    assert sense.nat_type(0) is NatType.SYMMETRIC


def test_a_port_of_its_own_for_everybody_is_symmetric() -> None:
    sense = NatSense()
    for number in range(2):
        vote(sense, SocketAddress(A.host, 5000 + number), number)
    assert sense.nat_type(0) is NatType.UNKNOWN
    vote(sense, SocketAddress(A.host, 5002), 2)
    assert sense.nat_type(0) is NatType.SYMMETRIC
    assert sense.trusted(0) is None


def test_several_addresses_with_one_port_are_not_symmetric() -> None:
    sense = NatSense()
    for number in range(6):
        vote(sense, SocketAddress(f"203.0.113.{number % 2}", 5001), number)
    assert sense.nat_type(0) is NatType.RESTRICTED


def test_two_votes_say_nothing_even_with_a_probe() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2)
    sense.set_probe_result(A, True, 0)
    assert sense.nat_type(0) is NatType.UNKNOWN


def test_votes_age() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2, 3)
    assert sense.trusted(VOTE_LIFETIME - 1) == A
    assert sense.trusted(VOTE_LIFETIME) is None
    assert sense.nat_type(VOTE_LIFETIME) is NatType.UNKNOWN


def test_news_is_a_new_reporter_or_a_changed_mind() -> None:
    sense = NatSense()
    assert sense.observe(reporter(1), A, 0) is News.NEW
    assert sense.observe(reporter(1), A, 1) is News.NONE
    assert sense.observe(reporter(1), B, 2) is News.CHANGED
    assert sense.observe(reporter(1), A, 2 + VOTE_LIFETIME) is News.NEW, "its old vote had lapsed"


def test_after_a_rebinding_reporters_move_their_votes() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2, 3)
    vote(sense, B, 1, 2, 3, now=60)
    assert sense.trusted(60) == B
    assert sense.nat_type(60) is NatType.RESTRICTED


def test_a_probe_of_an_address_we_have_no_more_does_not_count() -> None:
    sense = NatSense()
    vote(sense, A, 1, 2, 3)
    sense.set_probe_result(A, True, 0)
    vote(sense, B, 1, 2, 3, now=60)
    assert sense.reachable(60) is None


def test_a_probe_that_saw_different_ports_counts_where_votes_are_few() -> None:
    sense = NatSense()
    vote(sense, A, 1)
    sense.set_probe_result(B, None, 0, symmetric=True)
    assert sense.nat_type(0) is NatType.SYMMETRIC
    vote(sense, A, 2, 3)
    assert sense.nat_type(0) is NatType.RESTRICTED


@pytest.mark.parametrize("host", ["127.0.0.1", "192.168.1.5", "100.64.0.1", "fe80::1"])
def test_addresses_that_are_not_public_are_ignored(host: str) -> None:
    sense = NatSense(1)
    assert not sense.observe(reporter(1), SocketAddress(host, 12345), 0)
    assert not sense.observe(reporter(1), SocketAddress("203.0.113.5", 0), 0)
    assert sense.trusted(0) is None
    assert sense.trusted(0, ipv6=True) is None


def test_families_are_judged_apart() -> None:
    sense = NatSense(1)
    v6 = SocketAddress("2001:db8::5", 4121)
    sense.observe(reporter(1), A, 0)
    sense.observe(reporter(1), v6, 0)
    assert sense.trusted(0) == A
    assert sense.trusted(0, ipv6=True) == v6
    assert sense.nat_type(0) is NatType.RESTRICTED, "the port of the other family says nothing"


def test_fewer_peers_lower_the_threshold_but_never_to_one() -> None:
    sense = NatSense()
    vote(sense, A, 1)
    sense.known_peers = 1
    assert sense.trusted(0) is None
    vote(sense, A, 2)
    sense.known_peers = 2
    assert sense.trusted(0) == A
    sense.known_peers = 50
    assert sense.trusted(0) is None, "raised again"


def test_one_network_full_of_nodes_cannot_forge_our_address() -> None:
    sense = NatSense()
    for number in range(3):
        sense.observe(reporter(number), A, 0, source=source(number))
    for number in range(100, 200):
        sense.observe(reporter(number), B, 0, source=source(99, number))
    assert sense.trusted(0) == A
    assert sense.nat_type(0) is NatType.RESTRICTED


def test_peers_that_all_live_in_one_network_are_believed() -> None:
    sense = NatSense()
    for number in range(3):
        sense.observe(reporter(number), A, 0, source=source(7, number))
    assert sense.trusted(0) == A


def test_a_named_server_is_believed_alone() -> None:
    sense = NatSense()
    sense.observe_server(source(1), A, 0)
    assert sense.trusted(0) == A
    assert sense.nat_type(0) is NatType.RESTRICTED
    sense.observe_server(source(2), B, 0)
    assert sense.nat_type(0) is NatType.SYMMETRIC
    assert sense.trusted(0) is None


addresses = st.builds(
    SocketAddress,
    st.ip_addresses().map(str) | st.sampled_from([A.host, "2001:db8::1"]),
    st.sampled_from([0, 1, 5001, 65535]),
)


@given(st.integers(-1, 5), st.lists(st.tuples(st.integers(0, 900), addresses, st.floats(0, 4000)), max_size=80))
def test_whatever_is_reported_conclusions_are_public_and_supported(
    threshold: int, reports: list[tuple[int, SocketAddress, float]]
) -> None:
    sense = NatSense(threshold)
    now = 0.0
    for number, address, now in sorted(reports, key=lambda report: report[2]):
        sense.observe(reporter(number), address, now, source=source(number % 250))
        for ipv6 in (False, True):
            trusted = sense.trusted(now, ipv6=ipv6)
            if trusted is not None:
                assert is_public(trusted.host)
                assert (ipaddress.ip_address(trusted.host).version == 6) == ipv6
                recent = {who for who, seen, at in reports if seen == trusted and now - at < VOTE_LIFETIME}
                assert len(recent) >= sense.threshold
        sense.nat_type(now)


def test_memory_is_bounded() -> None:
    sense = NatSense()
    for number in range(4 * MAX_VOTES):
        sense.observe(reporter(number), A, 0, source=source(number % 250))
    assert sense.reporters(0) <= MAX_VOTES
