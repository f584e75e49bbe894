"""Whether what a record says belongs under the DHT key it was met at."""

from __future__ import annotations

from a2al_trio.identity import NodeId
from a2al_trio.wire.errors import RecordNotAuthorized
from a2al_trio.wire.mailbox import mailbox_recipient
from a2al_trio.wire.payloads import TopicPayload, decode_payload, topic_key
from a2al_trio.wire.records import RecordCategory, SignedRecord

__all__ = ["check_content_key"]


def check_content_key(record: SignedRecord, key: NodeId) -> None:
    """Check that a topic or mailbox record belongs under the DHT key it was met at (spec 02 §15.2 item 4).

    The topic's text, or the recipient, gives the key; honest publishers always match. Other types pass. Raises
    InvalidRecord.
    """
    if record.record_type == TopicPayload.record_type:
        if topic_key(decode_payload(TopicPayload, record.record_type, record.payload).topic) != key:
            raise RecordNotAuthorized("the record's topic is not the one of its DHT key")
    elif record.category is RecordCategory.MAILBOX and mailbox_recipient(record).node_id != key:
        raise RecordNotAuthorized("the mail's recipient is not the one of its DHT key")
