"""Mail between hosts of a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from a2al_trio.errors import ConfigurationError, RecordNotFound
from a2al_trio.host import AgentConnection, Host
from a2al_trio.identity import Identity, SigningKey, issue_delegation
from a2al_trio.testing import SimNet
from a2al_trio.wire import (
    MAIL_ACCEPTED,
    MAX_MAIL_BODY,
    MailboxMessage,
    MailboxType,
    PayloadTooLarge,
    RecordType,
    SignedRecord,
    decode_record,
    encode_mail_delivery,
    seal_mailbox,
    sign_record,
)
from tests.host.world import ALICE, BOB, EPOCH, SEED, identity, three_hosts, unix_time


@asynccontextmanager
async def three_known_hosts() -> AsyncIterator[tuple[SimNet, Host, Host, Host]]:
    async with three_hosts() as world:
        _, _, alice, bob = world
        await alice.publish()
        await bob.publish()
        yield world


def note(sender: Identity, recipient: Identity, body: bytes, *, sequence: int = 1) -> SignedRecord:
    payload = seal_mailbox(
        sender.address,
        recipient.address,
        recipient.public_key,
        MailboxType.TEXT,
        body,
        entropy=lambda size: bytes(size),
    )
    now = int(unix_time())
    return sign_record(sender, RecordType.MAILBOX, payload, sequence=sequence, timestamp=now, ttl=3600)


def damaged(record: SignedRecord) -> SignedRecord:
    return decode_record(record.encoded.replace(record.signature, bytes(64)))


def bodies(messages: list[MailboxMessage]) -> list[bytes]:
    return [message.body for message in messages]


async def test_a_note_is_polled_once_and_says_from_whom(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        sent = await alice.mailbox.send(BOB.address, b"hello", direct=False)
        assert not await sent.wait_delivered()
        [message] = await bob.mailbox.poll()
        assert (message.sender, message.sender_key) == (ALICE.address, ALICE.public_key)
        assert (message.message_type, message.body) == (MailboxType.TEXT, b"hello")
        assert await bob.mailbox.poll() == []


async def test_many_notes_come_in_order(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        expected = [f"note {number}".encode() for number in range(4)]
        for body in expected:
            await alice.mailbox.send(BOB.address, body, direct=False)
            await trio.sleep(1)
        assert bodies(await bob.mailbox.poll()) == expected


async def test_a_note_is_delivered_directly(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        sent = await alice.mailbox.send(BOB.address, b"quick", message_type=0x40)
        assert await sent.wait_delivered()
        assert sent.delivered
        assert len(alice.pool) == 1
        [message] = await bob.mailbox.poll()
        assert (message.message_type, message.body) == (0x40, b"quick")


async def test_messages_yields_what_is_there_and_what_comes(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        await alice.mailbox.send(BOB.address, b"one", direct=False)
        messages = bob.mailbox.messages()
        assert (await anext(messages)).body == b"one"
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.mailbox.send, BOB.address, b"two")
            assert (await anext(messages)).body == b"two"
        assert trio.current_time() - began < 2, "a direct delivery is seen at once"
        await alice.mailbox.send(BOB.address, b"three", direct=False)
        assert (await anext(messages)).body == b"three"
        assert trio.current_time() - began < 60


async def test_a_push_is_seen_at_once_and_asks_for_more(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, _, bob):
        record = note(ALICE, BOB, b"pushed")
        assert bob.mailbox.take_push(BOB.node_id, record)
        assert not bob.mailbox.take_push(BOB.node_id, record), "a duplicate does not renew"
        assert not bob.mailbox.take_push(ALICE.node_id, record), "a key that is not ours"
        assert bodies(await bob.mailbox.poll()) == [b"pushed"]
        assert not bob.mailbox.take_push(BOB.node_id, record), "nor does one that was read"


async def test_a_holder_pushes_mail_to_who_waits_for_it(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        messages = bob.mailbox.messages()
        await alice.mailbox.send(BOB.address, b"first", direct=False)
        assert (await anext(messages)).body == b"first"
        await trio.sleep(1)
        for body in (b"second", b"third"):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(alice.mailbox.send, BOB.address, body, direct=False))
                assert (await anext(messages)).body == body
            assert trio.current_time() - began < 1


async def test_one_sender_cannot_fill_the_box(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob), alice.connect(BOB.address) as connection:
        notes = [note(ALICE, BOB, b"note %d" % number, sequence=number) for number in range(20)]
        answers = [await delivered(connection, record) for record in notes[:10]]
        pushes = [bob.mailbox.take_push(BOB.node_id, record) for record in notes[10:]]
        assert len(bob.dht.local_records(BOB.node_id, RecordType.MAILBOX)) == 4
        assert answers[0] == MAIL_ACCEPTED
        assert set(answers) | {b""} == {MAIL_ACCEPTED, b""}
        assert len(pushes) == 10
        # And over the wire, stored by a stranger: the node stays up.
        for record in notes:
            await alice.dht.store_at(bob.dht_address, record, BOB.node_id)
        assert len(await bob.mailbox.poll()) <= 4


async def test_a_hint_brings_the_next_poll_forward(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        messages = bob.mailbox.messages()
        await alice.mailbox.send(BOB.address, b"first", direct=False)
        assert (await anext(messages)).body == b"first"
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            async def hint() -> None:
                await trio.sleep(1)
                sent = await alice.mailbox.send(BOB.address, b"second", direct=False)
                bob.mailbox.expect(BOB.address, [sent.record.payload_id])

            nursery.start_soon(hint)
            assert (await anext(messages)).body == b"second"
        assert trio.current_time() - began < 10


async def test_holders_tell_a_publisher_of_waiting_mail(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob):
        messages = bob.mailbox.messages()
        await alice.mailbox.send(BOB.address, b"first", direct=False)
        assert (await anext(messages)).body == b"first"
        await alice.mailbox.send(BOB.address, b"second", direct=False)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bob.publish)
            assert (await anext(messages)).body == b"second"
        assert trio.current_time() - began < 10


async def test_hints_about_strangers_are_nothing_to_us(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, _, bob):
        bob.mailbox.expect(ALICE.address, [])
        bob.mailbox.arrived(ALICE.address)
        assert bob.mailbox._boxes == {}


async def test_mail_goes_to_and_from_every_agent_of_a_host(autojump_clock: trio.testing.MockClock) -> None:
    second = identity(20)
    async with three_known_hosts() as (_, _, alice, bob):
        bob.register_agent(second)
        await bob.publish()
        await alice.mailbox.send(second.address, b"to the second", direct=False)
        assert await bob.mailbox.poll() == []
        assert bodies(await bob.mailbox.poll(second.address)) == [b"to the second"]
        await bob.mailbox.send(ALICE.address, b"from the second", agent=second.address, direct=False)
        [message] = await alice.mailbox.poll()
        assert message.sender == second.address
        sent = await bob.mailbox.send(BOB.address, b"within the host", agent=second.address)
        assert await sent.wait_delivered()
        assert bodies(await bob.mailbox.poll()) == [b"within the host"]


async def test_a_delegated_agent_writes_and_is_written_to(autojump_clock: trio.testing.MockClock) -> None:
    master, operational = SigningKey(bytes(31) + b"\x50"), SigningKey(bytes(31) + b"\x51")
    proof = issue_delegation(master, operational.public_key, issued_at=EPOCH - 10, expires_at=EPOCH + 86400)
    agent = Identity.delegated(operational, proof.encode(), now=EPOCH)
    async with three_known_hosts() as (_, _, alice, bob):
        bob.register_agent(agent)
        await bob.publish()
        sent = await alice.mailbox.send(agent.address, b"to its operational key")
        assert await sent.wait_delivered()
        assert bodies(await bob.mailbox.poll(agent.address)) == [b"to its operational key"]
        await bob.mailbox.send(ALICE.address, b"from it", agent=agent.address)
        [message] = await alice.mailbox.poll()
        assert (message.sender, message.sender_key) == (agent.address, operational.public_key)


async def test_an_answer_needs_no_record_of_the_writer(autojump_clock: trio.testing.MockClock) -> None:
    stranger = identity(30)
    async with three_known_hosts() as (_, _, alice, _):
        with pytest.raises(RecordNotFound, match="no key to encrypt"):
            await alice.mailbox.send(stranger.address, b"who are you?")
        [message] = alice.mailbox.decrypt([note(stranger, ALICE, b"it's me")])
        assert message.sender == stranger.address
        await alice.mailbox.send(stranger.address, b"so it is", direct=False)


async def test_forged_mail_is_left_out(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, _, bob):
        good = note(ALICE, BOB, b"good")
        bent = damaged(good)
        stolen = attrs.evolve(good, address=SEED.address)
        other = note(ALICE, SEED, b"for somebody else")
        assert bodies(bob.mailbox.decrypt([bent, stolen, other, good])) == [b"good"]


async def test_expired_mail_is_left_out(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, _, bob):
        record = note(ALICE, BOB, b"late")
        await trio.sleep(3700)
        assert bob.mailbox.decrypt([record]) == []


async def test_bad_deliveries_are_answered_by_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, bob), alice.connect(BOB.address) as connection:
        good = note(ALICE, BOB, b"good")
        for record in (damaged(good), note(ALICE, SEED, b"for somebody else")):
            assert await delivered(connection, record) == b""
        assert await delivered(connection, good) == MAIL_ACCEPTED
        assert await delivered(connection, good) == MAIL_ACCEPTED, "a duplicate is welcomed like the first"
        assert bodies(await bob.mailbox.poll()) == [b"good"]


async def delivered(connection: AgentConnection, record: SignedRecord) -> bytes:
    async with await connection.open_stream() as stream:
        await stream.send_all(encode_mail_delivery(record))
        await stream.send_eof()
        return bytes(await stream.receive_all(limit=10))


async def test_mistakes_are_named(autojump_clock: trio.testing.MockClock) -> None:
    async with three_known_hosts() as (_, _, alice, _):
        await alice.mailbox.send(BOB.address, bytes(MAX_MAIL_BODY), direct=False)
        with pytest.raises(PayloadTooLarge, match="1 bytes too long"):
            await alice.mailbox.send(BOB.address, bytes(MAX_MAIL_BODY + 1))
        with pytest.raises(ConfigurationError, match="register it first"):
            await alice.mailbox.send(BOB.address, b"", agent=BOB.address)
        with pytest.raises(ConfigurationError, match="register it first"):
            await alice.mailbox.poll(BOB.address)


async def test_the_iterator_of_an_agent_ends_with_it(autojump_clock: trio.testing.MockClock) -> None:
    second = identity(20)
    async with three_known_hosts() as (_, _, _, bob), trio.open_nursery() as nursery:
        bob.register_agent(second)

        async def read() -> None:
            async for _ in bob.mailbox.messages(second.address):
                pass

        nursery.start_soon(read)
        await trio.sleep(3)
        bob.unregister_agent(second.address)
