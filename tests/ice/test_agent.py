from __future__ import annotations

import random

import attrs
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from a2al_trio.ice.agent import AgentConfig, Failed, IceAgent
from a2al_trio.ice.candidate import Candidate, CandidateType, candidate_priority
from a2al_trio.ice.checks import Credentials
from a2al_trio.ice.stun import Attribute, StunClass, StunMethod, decode_stun, encode_stun, encode_xor_address
from a2al_trio.net.address import SocketAddress
from a2al_trio.testing.nat import Nat
from tests.ice.pair import IcePair

KINDS: dict[str, Nat | None] = {
    "open": None,
    "full_cone": Nat.full_cone(),
    "restricted": Nat.restricted(),
    "port_restricted": Nat.port_restricted(),
    "symmetric": Nat.symmetric(),
    "udp_blocked": Nat.udp_blocked(),
}


def can_meet_directly(one: str, other: str) -> bool:
    if "udp_blocked" in (one, other):
        return False
    return not ({one, other} == {"symmetric"} or {one, other} == {"symmetric", "port_restricted"})


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_every_two_nats_meet_directly_where_they_can(one: str, other: str) -> None:
    pair = IcePair(nats=(KINDS[one], KINDS[other]))
    pair.connect()
    pair.settle()
    if can_meet_directly(one, other):
        assert pair.agree()
        assert pair.caller.selected is not None
        assert not pair.caller.selected.relayed
        assert max(side.selected_at for side in pair.sides) - pair.start < 0.5
    else:
        assert pair.caller.failed is not None
        assert pair.callee.failed is not None
        assert pair.now - pair.start < 10


@pytest.mark.parametrize(("heard_at", "late", "fails_at"), [(0.3, False, 8.0), (2.5, False, 9.5), (2.5, True, 10.5)])
def test_patience_runs_from_our_first_candidate(heard_at: float, late: bool, fails_at: float) -> None:
    """A peer that is heard late has 7 s all the same, and a candidate that comes at the end is checked for a while."""
    agent = IceAgent(controlling=True, entropy=random.Random(1).randbytes)
    candidate = Candidate(CandidateType.HOST, SocketAddress("192.0.2.1", 1), 100, "1")
    agent.add_local_candidate(candidate, 0.0)
    agent.end_local_candidates(0.1)
    agent.set_remote_credentials(Credentials("ufrag", "a password of some length"), heard_at)
    agent.end_remote_candidates(heard_at)
    if late:
        agent.add_remote_candidate(attrs.evolve(candidate, address=SocketAddress("192.0.2.9", 9)), 9.0)
    ended_at = 0.0
    while (now := agent.next_timeout()) is not None:
        ended_at = now
        agent.handle_timeout(now)
    assert isinstance(agent.next_event(), Failed)
    assert ended_at == pytest.approx(fails_at)


@pytest.mark.parametrize("relays", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "kinds", [("symmetric", "symmetric"), ("port_restricted", "symmetric"), ("udp_blocked", "open")]
)
def test_the_rest_meet_over_a_relay(kinds: tuple[str, str], relays: tuple[bool, bool]) -> None:
    if not relays[0] and "udp_blocked" in kinds:
        return
    pair = IcePair(nats=(KINDS[kinds[0]], KINDS[kinds[1]]), relays=relays)
    pair.connect()
    pair.settle()
    assert pair.caller.selected is not None
    assert pair.caller.selected.relayed
    assert max(side.selected_at for side in pair.sides) - pair.start < 0.8
    pair.run(20)
    assert pair.agree()


def test_a_direct_pair_that_comes_late_takes_over_from_the_relay() -> None:
    pair = IcePair(nats=(Nat.port_restricted(), Nat.port_restricted()), relays=(True, True))
    pair.connect()
    # what the direct pair sends is lost until both sides have settled on the relay
    for side in pair.sides:
        assert side.nat is not None
    real_send = pair.send
    pair.send = lambda side, base, destination, data: (  # type: ignore[method-assign]
        None
        if base == side.host and destination.host.startswith("198.51")
        else real_send(side, base, destination, data)
    )
    pair.run(8)
    assert all(side.selected is not None and side.selected.relayed for side in pair.sides)
    pair.send = real_send  # type: ignore[method-assign]
    pair.run(20)
    assert all(side.selected is not None and not side.selected.relayed for side in pair.sides)
    assert pair.agree()


@given(
    kinds=st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS))),
    relays=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
    duplicate=st.sampled_from([0.0, 0.3]),
    latency=st.sampled_from([0.0005, 0.02, 0.15]),
    candidate_delay=st.sampled_from([0.0, 0.3, 2.0]),
    controlling=st.sampled_from([(True, False), (True, True), (False, False)]),
)
@settings(max_examples=40)
def test_two_agents_agree_on_one_pair_or_both_fail(
    kinds: tuple[str, str],
    relays: tuple[bool, bool],
    seed: int,
    loss: float,
    jitter: float,
    duplicate: float,
    latency: float,
    candidate_delay: float,
    controlling: tuple[bool, bool],
) -> None:
    pair = IcePair(
        seed=seed,
        nats=(KINDS[kinds[0]], KINDS[kinds[1]]),
        relays=relays,
        controlling=controlling,
        latency=latency,
        loss=loss,
        jitter=jitter,
        duplicate=duplicate,
    )
    pair.connect(candidate_delay=candidate_delay)
    pair.settle(60)
    note(f"{[side.events for side in pair.sides]}")
    if can_meet_directly(*kinds) and loss < 0.2:
        assert pair.caller.selected is not None
        assert pair.callee.selected is not None
    assert (pair.caller.failed is None) == (pair.callee.failed is None)
    if pair.caller.selected is not None:
        pair.run(25)
        pair.run(25, until=pair.agree)  # under heavy loss they may be changing over just now
        if pair.caller.lost is None and pair.callee.lost is None:
            assert pair.agree()
            assert pair.caller.agent.controlling != pair.callee.agent.controlling


def test_two_in_the_same_role_settle_it_by_tie_breaker() -> None:
    for roles in ((True, True), (False, False)):
        for seed in range(6):
            pair = IcePair(controlling=roles, seed=seed)
            pair.connect()
            pair.settle()
            assert pair.agree()
            assert pair.caller.agent.controlling != pair.callee.agent.controlling


def test_checks_before_the_peers_credentials_are_answered_and_used_later() -> None:
    pair = IcePair(nats=(Nat.port_restricted(), None))
    pair.connect(candidate_delay=0.0)
    # the callee learns the caller's credentials a second late; checks reach it before
    late = IcePair(nats=(None, None))
    caller, callee = late.caller, late.callee
    for side in late.sides:
        for candidate in late.candidates(side):
            side.agent.add_local_candidate(candidate, late.now)
    caller.agent.set_remote_credentials(callee.agent.credentials, late.now)
    caller.agent.add_remote_candidate(late.candidates(callee)[0], late.now)
    late.drain(caller)
    late.run(1.0)
    assert caller.selected is not None
    callee.agent.set_remote_credentials(caller.agent.credentials, late.now)
    late.drain(callee)
    late.settle()
    assert late.agree()


def test_consent_is_lost_half_a_minute_after_the_last_answer() -> None:
    pair = IcePair()
    pair.connect()
    pair.settle()
    pair.run(60)
    assert pair.caller.lost is None
    pair.loss = 1.0
    cut_at = pair.now
    pair.run(60)
    for side in pair.sides:
        assert side.lost is not None
        lost_at = next(at for at, event in side.events if event is side.lost)
        assert 23 < lost_at - cut_at < 31
        assert side.agent.next_timeout() is None


def test_consent_checks_come_every_four_to_six_seconds() -> None:
    pair = IcePair()
    pair.connect()
    pair.settle()
    pair.run(0.5)
    pair.caller.sent.clear()
    start = pair.now
    pair.run(60)
    # every check of the callee is answered, so half of what is sent are answers
    assert 60 / 6 - 1 <= len(pair.caller.sent) / 2 <= 60 / 4 + 1
    assert pair.now - start == pytest.approx(60)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kinds", [("full_cone", "restricted"), ("open", "port_restricted"), ("symmetric", "open")])
def test_a_nat_that_restarts_is_survived(kinds: tuple[str, str], side: int) -> None:
    pair = IcePair(nats=(KINDS[kinds[0]], KINDS[kinds[1]]))
    pair.connect()
    pair.settle()
    pair.run(20)
    nat = pair.sides[side].nat
    if nat is None:
        return
    # it comes back with other ports, which all but a peer's port-dependent NAT lets through
    nat.nat = Nat(mapping=nat.nat.mapping, filtering=nat.nat.filtering, keeps_ports=False)
    nat.forget()
    pair.run(12)
    assert pair.agree()
    pair.run(40)
    assert pair.caller.lost is None
    assert pair.callee.lost is None


def test_a_change_of_network_that_leads_nowhere_is_told_soon() -> None:
    pair = IcePair(nats=(Nat.port_restricted(), Nat.port_restricted()))
    pair.connect()
    pair.settle()
    pair.run(20)
    assert isinstance(pair.caller.agent, IceAgent)
    pair.loss = 1.0
    changed_at = pair.now
    pair.caller.agent.network_changed(pair.now)
    pair.drain(pair.caller)
    pair.run(10)
    assert pair.caller.lost is not None
    assert pair.caller.events[-1][0] - changed_at == pytest.approx(6)


def test_a_change_of_network_that_changes_nothing_is_no_loss() -> None:
    pair = IcePair(nats=(Nat.port_restricted(), Nat.port_restricted()))
    pair.connect()
    pair.settle()
    for side in pair.sides:
        assert isinstance(side.agent, IceAgent)
        side.agent.network_changed(pair.now)
        pair.drain(side)
        pair.run(30)
    assert pair.agree()
    assert pair.caller.lost is None
    assert pair.callee.lost is None


def test_a_lost_relay_leads_to_another_pair() -> None:
    pair = IcePair(nats=(Nat.symmetric(), Nat.symmetric()), relays=(True, True))
    pair.connect()
    pair.settle()
    side = next(side for side in pair.sides if side.selected is not None and side.selected.base == side.relay)
    assert side.relay is not None
    gone = side.relay
    side.relay = None
    assert isinstance(side.agent, IceAgent)
    side.agent.remove_base(gone, pair.now)
    pair.drain(side)
    pair.run(25)
    assert side.selected is not None
    assert side.selected.base != gone
    assert pair.caller.lost is None
    assert pair.callee.lost is None


LOCAL = SocketAddress("192.0.2.1", 1000)
PEER = SocketAddress("192.0.2.2", 2000)
THEIRS = Credentials("theirs", "their password that is long")


class Solo:
    """One agent against hand-made messages."""

    def __init__(self, *, controlling: bool) -> None:
        self.agent = IceAgent(controlling=controlling, entropy=lambda count: bytes([7]) * count, config=AgentConfig())
        self.now = 10.0
        kind = CandidateType.HOST
        self.agent.add_local_candidate(Candidate(kind, LOCAL, candidate_priority(kind), "1"), self.now)

    def check(
        self, attributes: list[tuple[int, bytes]], *, key: bytes | None = None, username: str = ""
    ) -> list[bytes]:
        own = self.agent.credentials
        name = (username or f"{own.ufrag}:{THEIRS.ufrag}").encode()
        raw = encode_stun(
            StunClass.REQUEST,
            StunMethod.BINDING,
            bytes(12),
            [(Attribute.USERNAME, name), *attributes],
            key=own.pwd.encode() if key is None else key,
        )
        self.agent.receive(LOCAL, raw, PEER, self.now)
        return [transmit.data for transmit in self.agent.transmits()]


def test_unauthenticated_checks_are_not_answered() -> None:
    solo = Solo(controlling=False)
    assert solo.check([], key=b"wrong") == []
    assert solo.check([], username="nobody:x") == []
    assert len(solo.check([])) == 1


def test_unknown_required_attributes_are_refused() -> None:
    solo = Solo(controlling=False)
    (answer,) = solo.check([(0x7F00, b"")])
    message = decode_stun(answer)
    assert message.error is not None
    assert message.error[0] == 420
    assert message.get(Attribute.UNKNOWN_ATTRIBUTES) == b"\x7f\x00"


def test_a_peer_that_ignores_487_gets_its_way() -> None:
    solo = Solo(controlling=True)
    solo.agent.set_remote_credentials(THEIRS, solo.now)
    codes = []
    for _ in range(8):
        answers = [decode_stun(raw) for raw in solo.check([(Attribute.ICE_CONTROLLING, bytes(8))])]
        codes += [message.error[0] for message in answers if message.error is not None]
        solo.now += 0.3
    assert codes == [487] * 4
    assert not solo.agent.controlling


def test_answers_from_elsewhere_do_not_count() -> None:
    solo = Solo(controlling=True)
    solo.agent.set_remote_credentials(THEIRS, solo.now)
    kind = CandidateType.HOST
    solo.agent.add_remote_candidate(Candidate(kind, PEER, candidate_priority(kind), "2"), solo.now)
    (sent,) = [transmit.data for transmit in solo.agent.transmits()]
    check = decode_stun(sent)
    answer = encode_stun(
        StunClass.SUCCESS,
        StunMethod.BINDING,
        check.transaction_id,
        [(Attribute.XOR_MAPPED_ADDRESS, encode_xor_address(LOCAL, check.transaction_id))],
        key=THEIRS.pwd.encode(),
    )
    solo.agent.receive(LOCAL, answer, SocketAddress("192.0.2.99", 1), solo.now)
    solo.agent.handle_timeout(solo.now + 0.05)
    assert not any(decode_stun(t.data).get(Attribute.USE_CANDIDATE) is not None for t in solo.agent.transmits())
    solo.agent.receive(LOCAL, answer, PEER, solo.now + 0.06)
    assert any(decode_stun(t.data).get(Attribute.USE_CANDIDATE) is not None for t in solo.agent.transmits())


@given(st.lists(st.binary(max_size=80), max_size=6), st.booleans())
def test_any_datagrams_leave_the_agent_standing(datagrams: list[bytes], controlling: bool) -> None:
    solo = Solo(controlling=controlling)
    solo.agent.set_remote_credentials(THEIRS, solo.now)
    for body in datagrams:
        raw = b"\0\1" + (len(body) // 4 * 4).to_bytes(2, "big") + bytes.fromhex("2112a442") + bytes(12) + body
        solo.agent.receive(LOCAL, raw, PEER, solo.now)
        solo.agent.receive(LOCAL, body, PEER, solo.now)
    assert list(solo.agent.transmits()) == []


def test_an_authenticated_flood_of_sources_stays_bounded() -> None:
    solo = Solo(controlling=False)
    solo.agent.set_remote_credentials(THEIRS, solo.now)
    own = solo.agent.credentials
    for port in range(1, 2000):
        raw = encode_stun(
            StunClass.REQUEST,
            StunMethod.BINDING,
            port.to_bytes(12, "big"),
            [(Attribute.USERNAME, f"{own.ufrag}:{THEIRS.ufrag}".encode())],
            key=own.pwd.encode(),
        )
        solo.agent.receive(LOCAL, raw, SocketAddress("192.0.2.2", port), solo.now)
        for _ in solo.agent.transmits():
            pass
    assert not solo.agent.accepts(SocketAddress("192.0.2.2", 1999))
