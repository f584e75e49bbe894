"""Ids and distances, addresses, timers, operations, and what is kept in files."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.dht.addresses import Scope, network_of, scope_of
from a2al_trio.dht.distance import as_int, bucket_index, random_id_in_bucket, to_node_id
from a2al_trio.dht.memory import decode_published, encode_published
from a2al_trio.dht.operation import Operation
from a2al_trio.dht.seen import SeenPeers
from a2al_trio.dht.survey import is_crowded, region_bits
from a2al_trio.dht.timers import Timers
from a2al_trio.dht.units import Unit
from a2al_trio.identity import NodeId
from tests.dht.support import NOW, endpoint, identity

IDS = st.integers(0, 2**256 - 1)


@given(IDS, IDS)
def test_distance_and_bucket_agree_with_the_ids(a: int, b: int) -> None:
    one, two = to_node_id(a), to_node_id(b)
    assert as_int(one) == a
    assert one.distance(two) == a ^ b
    assert one.common_prefix_len(two) == bucket_index(a, b)


@given(IDS, st.integers(0, 255))
def test_a_random_id_lies_in_its_bucket(own: int, index: int) -> None:
    assert bucket_index(own, random_id_in_bucket(own, index, os.urandom)) == index


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("8.8.8.8", Scope.GLOBAL),
        ("2a00:1450::1", Scope.GLOBAL),
        ("10.1.2.3", Scope.PRIVATE),
        ("172.31.0.1", Scope.PRIVATE),
        ("192.168.0.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("169.254.1.1", Scope.PRIVATE),
        ("fe80::1%eth0", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("127.3.2.1", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("0.0.0.0", Scope.UNUSABLE),
        ("0.1.2.3", Scope.UNUSABLE),
        ("::", Scope.UNUSABLE),
        ("224.0.0.1", Scope.UNUSABLE),
        ("ff02::1", Scope.UNUSABLE),
        ("255.255.255.255", Scope.UNUSABLE),
    ],
)
def test_scopes(host: str, scope: Scope) -> None:
    assert scope_of(host) is scope


def test_networks_are_24_and_56_bits() -> None:
    assert network_of("8.8.8.1") == network_of("8.8.8.250") != network_of("8.8.9.1")
    assert network_of("2001:db8:0:ff::1") == network_of("2001:db8:0:01::1") != network_of("2001:db8:0:100::1")


def test_timers_run_in_order_and_cancelled_ones_do_not() -> None:
    timers, ran = Timers(), []
    timers.at(2.0, lambda now: ran.append(("b", now)))
    timers.at(1.0, lambda now: ran.append(("a", now)))
    timers.at(2.0, lambda now: ran.append(("c", now)))
    timers.at(1.5, lambda now: ran.append(("never", now))).cancel()
    assert timers.next_at() == 1.0
    timers.run(2.0)
    assert ran == [("a", 2.0), ("b", 2.0), ("c", 2.0)]
    assert timers.next_at() is None


def test_an_operation_tells_everybody_once_and_is_abandoned_by_the_last() -> None:
    abandoned: list[bool] = []
    told: list[int] = []
    operation: Operation[int] = Operation(on_abandoned=lambda: abandoned.append(True))

    def one(finished: Operation[int]) -> None:
        told.append(finished.value())

    def two(finished: Operation[int]) -> None:
        told.append(-finished.value())

    operation.when_done(one)
    operation.when_done(two)
    operation.give_up(two)
    assert not abandoned
    operation.finish(7)
    operation.finish(8)
    operation.when_done(one)
    assert told == [7, 7]
    lonely: Operation[int] = Operation(on_abandoned=lambda: abandoned.append(True))
    lonely.when_done(one)
    lonely.give_up(one)
    assert abandoned == [True]


def test_the_seen_peers_file_skips_what_is_malformed_or_old() -> None:
    seen = SeenPeers()
    seen.mark(NodeId(b"\x01" * 32), NOW)
    seen.mark(NodeId(b"\x02" * 32), NOW - 3600)
    text = seen.dump(NOW)
    other = SeenPeers()
    noise = f"# comment\n\n{'zz' * 32} 5\n{'03' * 32} {NOW - 8 * 24 * 3600}\n{'04' * 32} x\n{'05' * 32} {10**30}\n"
    other.load(noise + text, NOW)
    assert other.reach(NOW, 3600) == 2
    assert other.reach(NOW, 10) == 1
    assert other.met_since_start == 0


@given(st.binary(max_size=200))
def test_any_published_file_is_read_without_an_error(data: bytes) -> None:
    decode_published(data, NOW)


def test_published_records_come_back_unless_expired() -> None:
    alive, dead = endpoint(identity(1)), endpoint(identity(2), timestamp=NOW - 4000)
    units = [Unit(record.address.node_id, record, 8) for record in (alive, dead)]
    assert decode_published(encode_published(units), NOW) == [(alive.address.node_id, alive)]


def test_a_crowd_is_told_from_a_small_network_and_from_chance() -> None:
    nodes = 1000
    usual = [(number << 256) // nodes for number in range(1, 17)]
    assert not is_crowded(usual, nodes)
    assert not is_crowded([distance // 3 for distance in usual], nodes)
    assert is_crowded([distance // 20 for distance in usual], nodes)
    assert not is_crowded([distance // 20 for distance in usual], 20)
    assert not is_crowded(usual[:3], nodes)
    assert region_bits(1000) == 4
    assert region_bits(10) == 0
