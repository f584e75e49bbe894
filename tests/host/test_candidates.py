"""Which addresses a host advertises, and in which order (spec 04 §8.1)."""

from __future__ import annotations

import attrs
import pytest

from a2al_trio.host.candidates import MAX_OWN, Candidates, is_publishable
from a2al_trio.identity import NodeId
from a2al_trio.nat.sense import NatSense
from a2al_trio.net.address import SocketAddress

OBSERVED = SocketAddress("203.0.113.5", 61000)


def sense_of(*addresses: SocketAddress) -> NatSense:
    sense = NatSense(1)
    for number, address in enumerate(addresses):
        sense.observe(NodeId(bytes([number]) * 32), address, 0)
    return sense


def candidates(bound: str = "0.0.0.0", *observed: SocketAddress) -> Candidates:
    sense = sense_of(*observed)
    return Candidates(
        quic_address=SocketAddress(bound, 4121),
        sense=sense,
        dht_sense=sense,
        external_host=lambda: None,
        mapped=tuple,
        local_hosts=lambda: ("192.168.1.5", "198.51.100.7", "2001:db8::7", "fd00::7"),
    )


def urls(found: Candidates) -> list[str]:
    return [candidate.url for candidate in found.collect(0)]


def test_all_sources_in_order_and_ipv6_last() -> None:
    everything = attrs.evolve(
        candidates("::", OBSERVED, SocketAddress("2001:db8::5", 4121)),
        external_host=lambda: "203.0.113.6",
        mapped=lambda: [SocketAddress("203.0.113.9", 4122)],
        fallback_host=" node.example ",
    )
    assert urls(everything) == [
        "quic://203.0.113.5:61000",
        "quic://203.0.113.6:4121",
        "quic://198.51.100.7:4121",
        "quic://node.example:4121",
        "quic://203.0.113.9:4122",
        "quic://[2001:db8::5]:4121",
        "quic://[2001:db8::7]:4121",
    ]
    sources = [candidate.source for candidate in everything.collect(0)]
    assert sources == ["observed", "external", "interface", "fallback", "mapped", "observed", "interface"]


def test_a_mapped_port_comes_last_of_its_family() -> None:
    mapped = attrs.evolve(candidates("0.0.0.0", OBSERVED), mapped=lambda: [SocketAddress("203.0.113.9", 4122)])
    assert urls(mapped) == ["quic://203.0.113.5:61000", "quic://198.51.100.7:4121", "quic://203.0.113.9:4122"]


def test_what_two_sources_know_appears_once() -> None:
    twice = attrs.evolve(
        candidates("198.51.100.7", SocketAddress("198.51.100.7", 4121)), external_host=lambda: "198.51.100.7"
    )
    assert urls(twice) == ["quic://198.51.100.7:4121"]


def test_an_ipv4_socket_has_no_ipv6_address() -> None:
    assert urls(candidates("0.0.0.0")) == ["quic://198.51.100.7:4121"]
    assert urls(candidates("192.168.1.5")) == []


def test_addresses_nobody_can_use_are_left_out() -> None:
    useless = attrs.evolve(
        candidates(),
        local_hosts=lambda: ("10.0.0.1", "2002:c000:204::1"),
        external_host=lambda: "192.168.1.1",
        mapped=lambda: [SocketAddress("100.64.0.1", 4121)],
    )
    assert urls(useless) == []


def test_the_users_own_word_is_not_questioned() -> None:
    assert urls(attrs.evolve(candidates("192.168.1.5"), fallback_host="10.1.1.1")) == ["quic://10.1.1.1:4121"]
    assert urls(attrs.evolve(candidates("192.168.1.5"), fallback_host="fd00::9")) == ["quic://[fd00::9]:4121"]


def test_in_the_split_layout_the_dht_knows_the_host_only() -> None:
    split = attrs.evolve(candidates("0.0.0.0"), dht_sense=sense_of(OBSERVED), local_hosts=tuple)
    assert urls(split) == ["quic://203.0.113.5:4121"]
    assert urls(attrs.evolve(split, sense=sense_of(SocketAddress("203.0.113.5", 7)))) == ["quic://203.0.113.5:7"]


def test_behind_a_symmetric_nat_no_port_is_guessed() -> None:
    sense = sense_of(OBSERVED, SocketAddress("203.0.113.5", 61001))
    symmetric = attrs.evolve(
        candidates(), sense=sense, dht_sense=sense, external_host=lambda: "203.0.113.5", local_hosts=tuple
    )
    assert "quic://203.0.113.5:4121" not in urls(symmetric)


def test_a_machine_with_very_many_addresses_tells_a_few() -> None:
    many = attrs.evolve(candidates("::"), local_hosts=lambda: [f"2001:db8::{number:x}" for number in range(1, 60)])
    assert len(urls(many)) == MAX_OWN


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.1.1", "fe80::1%eth0", "2001::1", "2002::1", "fd00::1"])
def test_not_publishable(host: str) -> None:
    assert not is_publishable(host)


def test_publishable() -> None:
    assert is_publishable("203.0.113.1")
    assert is_publishable("2001:db8::1")
