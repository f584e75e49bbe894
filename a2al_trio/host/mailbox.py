"""Mail between agents: encrypted notes left in the DHT, and handed over directly where that works (spec 04 §11).

A note that comes out of here is from whom it says: signature and authority of its record have been checked, however
it came (spec 04 §17 D8).
"""

from __future__ import annotations

import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Protocol, Self

import attrs
import trio

from a2al_trio.dht import Dht, PolicyRefused, Publication, StaleRecord
from a2al_trio.dht.events import MailWaiting
from a2al_trio.errors import RecordInvalid, RecordNotFound
from a2al_trio.host.agents import AgentTable
from a2al_trio.host.stamps import RecordStamps
from a2al_trio.identity import Address, Identity, NodeId
from a2al_trio.wire import (
    MailboxMessage,
    MailboxType,
    RecordCategory,
    RecordType,
    SignedRecord,
    WireDecodeError,
    check_authority,
    check_content_key,
    check_record,
    open_mailbox,
    seal_mailbox,
    sign_record,
)

__all__ = ["MAIL_TTL", "Courier", "MailEvents", "MailIterator", "Mailbox", "SentMail"]

logger = logging.getLogger(__name__)

MAIL_TTL = 3600
"""Seconds a note waits in the DHT (spec 04 §11)."""
POLL_INTERVAL = 45.0
"""Seconds between polls on average: a subscription at a holder lasts 60 (spec 08 §2.1)."""
POLL_JITTER = 0.25
POLL_PAUSE = 5.0
"""Seconds between two polls that are asked for (spec 08 §2.2)."""
REMEMBERED = 4096
"""Notes remembered per agent so that each is handed out once."""
KEYS_REMEMBERED = 1024


class Courier(Protocol):
    """Hands a mailbox record to its recipient over a connection."""

    async def deliver(self, recipient: Address, record: SignedRecord, *, local: Address) -> bool:
        """Whether the recipient's host has acknowledged it; False if it cannot be reached or takes no mail."""


@attrs.define(eq=False)
class SentMail:
    """A note on its way: in the DHT, and perhaps delivered directly."""

    record: SignedRecord
    publication: Publication
    _delivered: bool = False
    _settled: trio.Event = attrs.field(factory=trio.Event)

    @property
    def delivered(self) -> bool:
        """Whether the recipient's host has acknowledged it by now; False may still become True."""
        return self._delivered

    async def wait_delivered(self) -> bool:
        """Wait until the direct delivery has been acknowledged or has failed; ends by itself within seconds.

        False says nothing bad: the note waits in the DHT for the recipient to poll.
        """
        await self._settled.wait()
        return self._delivered

    def _settle(self, delivered: bool) -> None:
        self._delivered = delivered
        self._settled.set()


@attrs.define
class _Box:
    """What is kept per agent: what was handed out, and who waits for more."""

    seen: OrderedDict[bytes, int] = attrs.field(factory=OrderedDict)
    arrival: trio.Event = attrs.field(factory=trio.Event)
    poll_wanted: bool = False

    def wake(self) -> None:
        self.arrival.set()
        self.arrival = trio.Event()

    def mark(self, record: SignedRecord, now: int) -> bool:
        """Remember a record; False if it was known."""
        if record.payload_id in self.seen:
            return False
        while self.seen and (len(self.seen) >= REMEMBERED or next(iter(self.seen.values())) < now):
            self.seen.popitem(last=False)
        self.seen[record.payload_id] = record.expires_at
        return True


class Mailbox:
    """The mail of a host's agents: `host.mailbox`."""

    def __init__(
        self,
        *,
        dht: Dht,
        agents: AgentTable,
        courier: Courier,
        background: trio.Nursery,
        stamps: RecordStamps,
        entropy: Callable[[int], bytes],
        tolerance: int,
    ) -> None:
        self._dht = dht
        self._agents = agents
        self._courier = courier
        self._background = background
        self._stamps = stamps
        self._entropy = entropy
        self._tolerance = tolerance
        self._boxes: dict[Address, _Box] = {}
        self._keys: OrderedDict[Address, bytes] = OrderedDict()
        self._random = random.Random(entropy(8))

    async def send(
        self,
        recipient: Address,
        body: bytes,
        *,
        message_type: int = MailboxType.TEXT,
        agent: Address | None = None,
        direct: bool = True,
    ) -> SentMail:
        """Encrypt a note of at most 389 bytes to an agent and leave it in the DHT for an hour (spec 02 §11).

        The note is encrypted to the key of the recipient's endpoint record, or that of its last note to us. With
        `direct` it is also handed over by a connection, in the background, where the recipient's host takes that.

        Raises RecordNotFound if no key of the recipient can be found, WireEncodeError (PayloadTooLarge) for a body
        that is too long or a type over 255, and ConfigurationError for an unknown local agent.
        """
        sender = self._agents.get(agent)
        key = await self._key_of(recipient)
        payload = seal_mailbox(sender.address, recipient, key, message_type, body, entropy=self._entropy)
        record = sign_record(
            sender,
            RecordType.MAILBOX,
            payload,
            sequence=self._stamps.sequence(),
            timestamp=self._stamps.timestamp(),
            ttl=MAIL_TTL,
        )
        publication = await self._dht.publish(record, recipient.node_id)
        sent = SentMail(record, publication)
        if recipient in self._agents.addresses:
            self.arrived(recipient)
            sent._settle(True)
        elif direct:
            self._background.start_soon(self._deliver, sent, recipient, sender.address)
        else:
            sent._settle(False)
        return sent

    async def _deliver(self, sent: SentMail, recipient: Address, local: Address) -> None:
        delivered = False
        try:
            delivered = await self._courier.deliver(recipient, sent.record, local=local)
        finally:
            sent._settle(delivered)

    async def poll(self, agent: Address | None = None) -> list[MailboxMessage]:
        """Ask the DHT for the agent's mail, oldest first; each note is handed out once.

        Nothing there is an empty list. What is not authentic or does not decrypt is left out.
        """
        identity = self._agents.get(agent)
        records = await self._dht.find_records(identity.node_id, RecordType.MAILBOX, subscribe=True)
        return self._take_new(identity, records)

    def messages(self, agent: Address | None = None) -> MailIterator:
        """Yield the agent's notes as they come, until the agent is unregistered.

        Polls about every 45 seconds, and looks at once when a note is delivered directly or pushed. Several
        iterators of one agent share its notes. Raises ConfigurationError for an unknown local agent.
        """
        return MailIterator(self, self._agents.get(agent).address)

    def decrypt(self, records: Iterable[SignedRecord], agent: Address | None = None) -> list[MailboxMessage]:
        """Open mailbox records that came from elsewhere; what is not authentic, or not for the agent, is left out.

        Signature, expiry and the sender's authority are checked as for records of the DHT (spec 04 §17 D8).
        """
        identity = self._agents.get(agent)
        opened = (self._open(identity, record) for record in records if self._is_good(identity, record))
        return [message for message in opened if message is not None]

    def arrived(self, recipient: Address) -> None:
        """Tell that mail for one of our agents is held here now."""
        if recipient in self._agents.addresses:
            self._box(recipient).wake()

    def expect(self, recipient: Address, message_ids: Iterable[bytes]) -> None:
        """Tell that the DHT holds mail for one of our agents; no ids means: perhaps new (spec 08 §2.2)."""
        if recipient not in self._agents.addresses:
            return
        box = self._box(recipient)
        ids = list(message_ids)
        if not ids or any(message_id not in box.seen for message_id in ids):
            box.poll_wanted = True
            box.wake()

    def take_push(self, key: NodeId, record: SignedRecord) -> bool:
        """File a pushed or stored, checked record if it is mail for an agent of ours; whether a push was news."""
        agent = next((address for address in self._agents.addresses if address.node_id == key), None)
        if agent is None or record.category is not RecordCategory.MAILBOX:
            return False
        if record.payload_id in self._box(agent).seen:
            return False
        try:
            self._dht.put_local(record, key)
        except StaleRecord:
            self.arrived(agent)
            return False
        except (PolicyRefused, RecordInvalid) as error:
            logger.debug("mail from %s is not taken: %s", record.address, error)
            return False
        self.arrived(agent)
        return True

    def forget(self, agent: Address) -> None:
        """Drop what is remembered about an agent that was unregistered, and end its iterators."""
        if (box := self._boxes.pop(agent, None)) is not None:
            box.wake()

    def _pause(self) -> float:
        """Seconds to the next poll, so that a crowd of hosts does not poll in step."""
        return POLL_INTERVAL * self._random.uniform(1 - POLL_JITTER, 1 + POLL_JITTER)

    def _box(self, agent: Address) -> _Box:
        return self._boxes.setdefault(agent, _Box())

    def _take_held(self, agent: Address) -> list[MailboxMessage]:
        identity = self._agents.get(agent)
        return self._take_new(identity, self._dht.local_records(identity.node_id, RecordType.MAILBOX))

    def _take_new(self, identity: Identity, records: Iterable[SignedRecord]) -> list[MailboxMessage]:
        """Open those records of the DHT, which it has checked, that were not handed out before."""
        box, now = self._box(identity.address), self._stamps.now()
        fresh = [record for record in sorted(records, key=_age) if box.mark(record, now)]
        opened = (self._open(identity, record) for record in fresh)
        return [message for message in opened if message is not None]

    def _open(self, identity: Identity, record: SignedRecord) -> MailboxMessage | None:
        try:
            message = open_mailbox(record, identity.address, identity.key)
        except WireDecodeError as error:
            logger.debug("mail from %s is left out: %s", record.address, error)
            return None
        self._keys[message.sender] = message.sender_key
        self._keys.move_to_end(message.sender)
        if len(self._keys) > KEYS_REMEMBERED:
            self._keys.popitem(last=False)
        return message

    def _is_good(self, identity: Identity, record: SignedRecord) -> bool:
        now, key = self._stamps.now(), identity.node_id
        try:
            check_record(record, now=now, tolerance=self._tolerance)
            check_authority(record, key, now=now, tolerance=self._tolerance)
            check_content_key(record, key)
        except WireDecodeError as error:
            logger.debug("mail from %s is left out: %s", record.address, error)
            return False
        return True

    async def _key_of(self, recipient: Address) -> bytes:
        """The recipient's operational key, asked for each time, since agents change theirs."""
        if recipient in self._agents.addresses:
            return self._agents.get(recipient).public_key
        try:
            return (await self._dht.find_record(recipient.node_id, RecordType.ENDPOINT)).public_key
        except RecordNotFound as error:
            if (key := self._keys.get(recipient)) is not None:
                return key
            raise RecordNotFound(
                f"{recipient} has published no endpoint record, so there is no key to encrypt the note to"
            ) from error


@attrs.define
class MailEvents:
    """Hands what the layers below notice to the mailbox, which is made after them."""

    mailbox: Mailbox | None = None

    def pushed(self, key: NodeId, record: SignedRecord) -> bool:
        """A record was pushed to us; True asks for the next one, too."""
        return self.mailbox is not None and self.mailbox.take_push(key, record)

    def kept(self, recipient: Address) -> None:
        """A note was delivered directly and is held here now."""
        if self.mailbox is not None:
            self.mailbox.arrived(recipient)

    def waiting(self, hint: MailWaiting) -> None:
        """A holder of an agent's record says that mail waits (spec 08 §2.2)."""
        for mail in hint.mail:
            if self.mailbox is not None and mail.record_type == RecordType.MAILBOX and mail.count:
                self.mailbox.expect(hint.publisher, mail.ids)


class MailIterator:
    """The notes of one agent as they come; made by `Mailbox.messages`."""

    def __init__(self, mailbox: Mailbox, agent: Address) -> None:
        self._mailbox = mailbox
        self._agent = agent
        self._ready: deque[MailboxMessage] = deque()
        self._polled_at = -POLL_PAUSE
        self._due = trio.current_time()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MailboxMessage:
        """Wait for the next note; cancelling the wait loses none."""
        mailbox = self._mailbox
        await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._agent not in mailbox._agents.addresses:
                raise StopAsyncIteration
            box = mailbox._box(self._agent)
            arrival = box.arrival
            self._ready += mailbox._take_held(self._agent)
            if not self._ready and trio.current_time() >= self._due:
                box.poll_wanted = False
                self._ready += await mailbox.poll(self._agent)
                self._polled_at = trio.current_time()
                self._due = self._polled_at + mailbox._pause()
            if self._ready:
                break
            due = min(self._due, self._polled_at + POLL_PAUSE) if box.poll_wanted else self._due
            with trio.move_on_at(due):
                await arrival.wait()
            if box.poll_wanted:
                self._due = due
        return self._ready.popleft()


def _age(record: SignedRecord) -> tuple[int, int]:
    return (record.timestamp, record.sequence)
