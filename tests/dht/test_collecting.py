"""How long a value search listens after its first find: short enough to use, long enough against rollback."""

from __future__ import annotations

import pytest

from a2al_trio.dht.contact import Contact
from a2al_trio.identity import ed25519
from a2al_trio.net.address import SocketAddress
from a2al_trio.wire.records import RecordType, sign_record
from benchmarks.dht_swarm import START, CheckCache, Swarm, endpoint_record
from tests.dht.hostile import Hostile, signer_near
from tests.dht.support import always, forged

ONE_WAY = 0.02


def test_a_silent_publisher_next_to_its_own_record_delays_nobody() -> None:
    """A node behind a NAT publishes its own endpoint: everybody names it as nearest and it never answers."""
    swarm = Swarm(1, verify=CheckCache(), latency=(ONE_WAY, ONE_WAY))
    swarm.add()
    swarm.grow(24)
    swarm.run_for(20)
    hidden = swarm.nodes[5]
    record = endpoint_record(hidden.identity, swarm.now, hidden.address)
    swarm.wait(hidden, hidden.commands.publish(record, None, swarm.now))
    swarm.kill(hidden)
    for asker in swarm.nodes[6:12]:
        asker.running.store.invalidate(hidden.identity.node_id)
        began = swarm.now
        find = asker.commands.find_newest(hidden.identity.node_id, RecordType.ENDPOINT, swarm.now, local=False)
        assert swarm.wait(asker, find) == record
        assert swarm.now - began <= 0.15


@pytest.mark.parametrize(("known_round_trip", "newest"), [(0.2, 2), (None, 1)])
def test_a_holder_known_to_be_far_away_is_waited_for(known_round_trip: float | None, newest: int) -> None:
    """Its answer comes 0.18 s after the question; a nearer holder gives an older record after 0.04 s."""
    swarm = Swarm(1, verify=always, latency=(ONE_WAY, ONE_WAY))
    asker = swarm.add()
    agent = swarm.identity()
    key = agent.address.node_id
    near, far = (Hostile(swarm, signer_near(key, 4, number)) for number in (1, 2))
    near.records = (endpoint_record(agent, swarm.now, sequence=1),)
    far.records = (endpoint_record(agent, swarm.now, sequence=2),)
    late: list[tuple[bytes, SocketAddress]] = []
    far.node.deliver = lambda data, source, now: late.append((data, source))
    for holder in (near, far):
        contact = Contact.of(holder.signer.address, holder.node.address)
        asker.running.table.prove(contact, swarm.now)
        if holder is far and known_round_trip is not None:
            asker.running.health.success(contact.key, swarm.now, known_round_trip)
    find = asker.commands.find_newest(key, RecordType.ENDPOINT, swarm.now, local=False)
    swarm.drain(asker)
    swarm.run_for(0.18)
    for data, source in late:
        far.deliver(data, source, swarm.now)
    assert swarm.wait(asker, find).sequence == newest


def test_answers_that_do_not_fit_the_question_are_no_find_and_each_record_is_checked_once() -> None:
    """Another type, somebody else's record and a forged one come from some; the right one from all others."""
    swarm = Swarm(1, verify=always)
    asker = swarm.add()
    agent, stranger = swarm.identity(), swarm.identity()
    key = agent.address.node_id
    right = endpoint_record(agent, swarm.now)
    profile = sign_record(agent, RecordType.PROFILE, b"\xa1\x01\x01", sequence=9, timestamp=START - 3, ttl=3600)
    wrong = (profile, endpoint_record(stranger, swarm.now, sequence=9), forged(right))
    checked: list[bytes] = []

    def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
        if message.startswith(b"a2al-rec\0"):
            checked.append(signature)
            return ed25519.verify(public_key, message, signature)
        return True  # the scripted holders have no keys

    asker.running.env.verify = verify
    for number in range(8):
        holder = Hostile(swarm, signer_near(key, 4, number))
        holder.records = (*wrong, right) if number % 2 else wrong
        asker.running.table.prove(Contact.of(holder.signer.address, holder.node.address), swarm.now)
    find = asker.commands.find_newest(key, RecordType.ENDPOINT, swarm.now, local=False)
    assert swarm.wait(asker, find) == right
    assert checked.count(right.signature) == 1
    assert len(checked) == len(set(checked)) <= 3
