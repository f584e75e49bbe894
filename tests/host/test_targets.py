"""Which endpoints of a record are dialled, and in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.host.targets import MAX_ENDPOINTS, Endpoint, endpoints_of, interleave_families, plan_path
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire import EndpointPayload

V4, V4_TOO = "quic://192.0.2.1:4121", "quic://192.0.2.2:4121"
V6 = "quic://[2001:db8::1]:4121"
GLOBAL_V6 = "quic://[2a00::1]:4121"


def test_quic_and_udp_urls_are_taken_in_order_once() -> None:
    payload = EndpointPayload(endpoints=(V4, "UDP://192.0.2.2:9/x?y", V6, V4, "quic://[::ffff:192.0.2.1]:4121"))
    assert endpoints_of(payload) == (
        Endpoint("192.0.2.1", 4121),
        Endpoint("192.0.2.2", 9),
        Endpoint("2001:db8::1", 4121),
    )


def test_what_cannot_be_dialled_is_skipped() -> None:
    bad = (
        "tcp://192.0.2.1:1",
        "quic://192.0.2.1",
        "quic://:5",
        "quic://[::1",
        "quic://a:99999",
        "quic://a:0",
        "nonsense",
    )
    assert endpoints_of(EndpointPayload(endpoints=bad)) == ()


def test_names_stay_names() -> None:
    (endpoint,) = endpoints_of(EndpointPayload(endpoints=("quic://Node.Example:4121",)))
    assert endpoint == Endpoint("node.example", 4121)
    assert endpoint.address is None


def test_a_record_cannot_make_us_dial_the_world() -> None:
    urls = tuple(f"quic://192.0.2.{number}:4121" for number in range(1, 200))
    assert len(endpoints_of(EndpointPayload(endpoints=urls))) == MAX_ENDPOINTS


def test_families_take_turns_from_the_first_one_on() -> None:
    a, b, c, x, y = (
        SocketAddress.of(host, 1) for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2")
    )
    assert interleave_families([a, b, c, x, y, a]) == [a, x, b, y, c]
    assert interleave_families([x, a, b]) == [x, a, b]
    assert interleave_families([]) == []


def test_open_nodes_are_dialled_at_once() -> None:
    for nat_type in (0, 1):
        plan = plan_path(
            EndpointPayload(endpoints=(V4, V6), nat_type=nat_type, signal="ws://hub", signals=("ws://hub",))
        )
        assert [endpoint.host for endpoint in plan.direct] == ["192.0.2.1", "2001:db8::1"]
        assert plan.deferred == ()
        assert plan.signals == ("ws://hub",)


def test_behind_a_nat_with_a_hub_only_public_ipv6_is_dialled_cold() -> None:
    for nat_type in (2, 3, 4):
        plan = plan_path(EndpointPayload(endpoints=(V4, GLOBAL_V6), nat_type=nat_type, signal="ws://hub"))
        assert [endpoint.host for endpoint in plan.direct] == ["2a00::1"]
        assert [endpoint.host for endpoint in plan.deferred] == ["192.0.2.1"]
        assert plan.signals == ("ws://hub",)


def test_behind_a_nat_without_a_hub_there_is_nothing_else_to_try() -> None:
    plan = plan_path(EndpointPayload(endpoints=(V4, V4_TOO), nat_type=4, signals=("ws://hub",)))
    assert len(plan.direct) == 2
    assert plan.signals == ()  # key 3 decides, spec 04 §10.2


@given(st.lists(st.text(max_size=60), max_size=40), st.integers(0, 4), st.text(max_size=10))
def test_any_record_gives_a_plan(urls: list[str], nat_type: int, signal: str) -> None:
    plan = plan_path(EndpointPayload(endpoints=tuple(urls), nat_type=nat_type, signal=signal))
    assert len(plan.direct) + len(plan.deferred) <= MAX_ENDPOINTS
    for endpoint in (*plan.direct, *plan.deferred):
        assert 0 < endpoint.port < 65536
