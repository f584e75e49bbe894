"""Our agent against a model of the reference's, in every combination of NATs and both roles (spec 06 §13, §21)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2al_trio.ice.candidate import CandidateType, candidate_priority, parse_candidate
from a2al_trio.testing.nat import Nat
from tests.ice.pair import IcePair
from tests.ice.test_agent import KINDS, can_meet_directly

ROLES = {"caller": (False, True), "callee": (True, False)}
"""Which side is the reference, by our own role."""


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_we_meet_the_reference_wherever_two_of_ours_would(one: str, other: str, role: str) -> None:
    pair = IcePair(nats=(KINDS[one], KINDS[other]), reference=ROLES[role])
    pair.connect()
    pair.settle(35)
    if not can_meet_directly(one, other):
        assert not pair.caller.selected
        return
    assert pair.agree()
    took = max(side.selected_at for side in pair.sides) - pair.start
    assert took < (0.4 if role == "caller" else 1.6)  # as caller it is the reference that takes its time (§13.3)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("relays", [(True, False), (False, True), (True, True)])
def test_we_meet_the_reference_over_a_relay(role: str, relays: tuple[bool, bool]) -> None:
    pair = IcePair(nats=(Nat.symmetric(), Nat.symmetric()), relays=relays, reference=ROLES[role])
    pair.connect()
    pair.settle(35)
    assert pair.agree()
    assert pair.caller.selected is not None
    assert pair.caller.selected.relayed


@given(
    role=st.sampled_from(list(ROLES)),
    kinds=st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS))),
    seed=st.integers(0, 2**32),
    latency=st.sampled_from([0.005, 0.02, 0.1]),
    jitter=st.sampled_from([0.0, 0.05]),
    candidate_delay=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=60)
def test_loss_does_not_keep_us_from_the_reference(
    role: str, kinds: tuple[str, str], seed: int, latency: float, jitter: float, candidate_delay: float
) -> None:
    pair = IcePair(
        seed=seed,
        nats=(KINDS[kinds[0]], KINDS[kinds[1]]),
        reference=ROLES[role],
        latency=latency,
        jitter=jitter,
        loss=0.05,
    )
    pair.connect(candidate_delay=candidate_delay)
    pair.settle(35)
    if can_meet_directly(*kinds):
        assert pair.caller.selected
        assert pair.callee.selected


def test_a_pair_the_reference_has_given_up_comes_back_under_another_type() -> None:
    """The trap of spec 06 §13.2, and the way out that the session takes."""
    pair = IcePair(nats=(Nat.port_restricted(), Nat.port_restricted()), reference=ROLES["callee"])
    real_send = pair.send
    pair.send = lambda side, *rest: None if side is pair.callee else real_send(side, *rest)  # type: ignore[method-assign]
    pair.connect()
    pair.run(2.5)  # its eight checks are spent at a NAT that we have not opened
    pair.send = real_send  # type: ignore[method-assign]
    pair.run(2.0)
    reflexive = next(c for c in pair.candidates(pair.callee) if c.type is CandidateType.SERVER_REFLEXIVE)
    kind = CandidateType.PEER_REFLEXIVE
    line = str(reflexive).replace("srflx", kind).replace(str(reflexive.priority), str(candidate_priority(kind, 0)))
    pair.signal(pair.callee, 0.02, lambda agent: agent.add_remote_candidate(parse_candidate(line), pair.now))
    pair.settle(10)
    assert pair.agree()


def test_consent_holds_with_the_reference_in_both_roles() -> None:
    for role in ROLES.values():
        pair = IcePair(nats=(Nat.port_restricted(), Nat.restricted()), reference=role)
        pair.connect()
        pair.settle()
        pair.run(300)
        assert pair.caller.lost is None
        assert pair.callee.lost is None


def test_two_callers_meet_when_only_one_can_change_its_role() -> None:
    """Glare with a reference that only ever drops what comes in its own role (spec 06 §13.6, D2)."""
    for reference in ROLES.values():
        for controlling in ((True, True), (False, False)):
            pair = IcePair(controlling=controlling, reference=reference)
            pair.connect()
            pair.settle(35)
            assert pair.agree()
            ours = pair.sides[reference.index(False)]
            assert ours.agent.controlling is not controlling[0]
