"""The host's use of the DHT's local store: topic records told on control streams, and mail delivered directly."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import attrs

from a2al_trio.dht import Dht, PolicyRefused, StaleRecord
from a2al_trio.errors import DecodeError, RecordInvalid
from a2al_trio.host.control import ControlReply
from a2al_trio.identity import Address
from a2al_trio.wire import (
    MailDelivery,
    RecordCategory,
    RecordType,
    SignedRecord,
    TopicPayload,
    check_authority,
    check_content_key,
    check_record,
    topic_key,
)

__all__ = ["Shelf"]

logger = logging.getLogger(__name__)


@attrs.define
class Shelf:
    """Reads and files records; everything from a peer is checked as if it came from a stranger."""

    dht: Dht
    unix_time: Callable[[], float]
    tolerance: int
    on_mail: Callable[[Address], None]
    """Told when mail for an agent of ours was kept."""

    def topics_of(self, agent: Address) -> Iterable[SignedRecord]:
        """The topic records of an agent held here."""
        return self.dht.records_by(agent, RecordType.TOPIC)

    def held_sequence(self, agent: Address) -> int:
        """The highest sequence number among them, 0 if there is none (spec 04 §5.3 no. 2)."""
        return max((record.sequence for record in self.topics_of(agent)), default=0)

    def take_reply(self, peer: Address, reply: ControlReply) -> None:
        """File the topic records an acceptor told us about itself under the keys of their topics."""
        for record in reply.records:
            if record.record_type != RecordType.TOPIC:
                continue
            try:
                key = topic_key(TopicPayload.decode(record.payload).topic)
                self._check(record)
                check_authority(record, key, now=int(self.unix_time()), tolerance=self.tolerance)
                self.dht.put_local(record, key)
            except (DecodeError, RecordInvalid, StaleRecord, PolicyRefused) as error:
                logger.debug("topic record told by %s is not taken: %s", peer, error)

    def take_mail(self, delivery: MailDelivery, recipient: Address) -> bool:
        """Check and keep a mailbox record for one of our agents; False if it is not acceptable (spec 08 §4)."""
        record = delivery.record
        if record.category is not RecordCategory.MAILBOX or record.payload_id != delivery.message_id:
            return False
        key = recipient.node_id
        try:
            self._check(record)
            check_authority(record, key, now=int(self.unix_time()), tolerance=self.tolerance)
            check_content_key(record, key)
            self.dht.put_local(record, key)
        except StaleRecord:
            return True  # a duplicate is welcomed like the first
        except (DecodeError, RecordInvalid, PolicyRefused) as error:
            logger.debug("mail from %s is not taken: %s", record.address, error)
            return False
        self.on_mail(recipient)
        return True

    def _check(self, record: SignedRecord) -> None:
        check_record(record, now=int(self.unix_time()), tolerance=self.tolerance)
