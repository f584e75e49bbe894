"""The HTTP/3 core alone: rules, limits, any bytes, and two cores that talk in pieces of any size."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import LocalProtocolError
from a2al_trio.h3 import ErrorCode, H3Config, H3Core, H3Error, RequestHead, ResponseHead
from a2al_trio.h3.core import StreamType
from a2al_trio.h3.events import GoAway, Head, MessageData, MessageEnd, RequestEvent, Trailers, Unblocked, Unwanted
from a2al_trio.h3.frames import FrameType, decode_settings, encode_frame, encode_settings, frame_header
from a2al_trio.h3.qpack import count_field_lines
from a2al_trio.quic.varint import encode_varint

CONTROL, ENCODER, DECODER = 2, 6, 10
"""Unidirectional streams of the peer in these tests."""
GET = RequestHead(b"GET", b"example.test", b"/")
LARGE = RequestHead(b"GET", b"a-rather-long-host.test", b"/", ((b"x-some-field", b"some rather long value" * 4),))
"""Too large to be sent without the dynamic table."""


def server() -> H3Core:
    return H3Core(is_client=False)


def plain(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A HEADERS frame without any table (RFC 9204 §4.5.6), short strings only."""
    block = b"\x00\x00"
    for name, value in fields:
        assert len(value) < 127
        size = len(name)
        block += (bytes((0x20 | size,)) if size < 7 else bytes((0x27, size - 7))) + name + bytes((len(value),)) + value
    return encode_frame(FrameType.HEADERS, block)


REQUEST = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/")]


def carry(sender: H3Core, receiver: H3Core, base: int) -> list[object]:
    """Hand over what is due on the sender's unidirectional streams."""
    events: list[object] = []
    for kind, data in sender.take_output():
        stream_id = base + 4 * kind
        events += receiver.receive_unidirectional(stream_id, data)
    return events


def open_streams(receiver: H3Core, base: int) -> None:
    for kind in (StreamType.CONTROL, StreamType.ENCODER, StreamType.DECODER):
        receiver.receive_unidirectional(base + 4 * kind, bytes((kind,)))


def pair() -> tuple[H3Core, H3Core]:
    """A client and a server that know each other's settings."""
    client, serving = H3Core(is_client=True), server()
    open_streams(serving, 2)
    open_streams(client, 3)
    carry(client, serving, 2)
    carry(serving, client, 3)
    return client, serving


def test_the_dynamic_table_makes_the_second_request_small() -> None:
    client, serving = pair()
    sizes = []
    for stream_id in range(0, 24, 4):
        data = client.send_section(stream_id, client.head_section(LARGE))
        carry(client, serving, 2)
        assert serving.receive_request(stream_id, data, end=True) == [Head(LARGE), MessageEnd()]
        carry(serving, client, 3)
        sizes.append(len(data))
    assert sizes[-1] * 3 < sizes[0]


def test_a_small_section_does_without_the_dynamic_table() -> None:
    client, serving = pair()
    client.take_output()
    for stream_id in range(0, 40, 4):
        data = client.send_section(stream_id, client.head_section(GET))
        assert serving.receive_request(stream_id, data, end=True) == [Head(GET), MessageEnd()]
    assert client.take_output() == serving.take_output() == []


def test_acknowledgements_wait_for_each_other() -> None:
    client, serving = pair()
    sent_alone, sizes = 0, []
    for stream_id in range(0, 400, 4):
        data = client.send_section(stream_id, client.head_section(LARGE))
        carry(client, serving, 2)
        serving.receive_request(stream_id, data, end=True)
        if serving.has_output:
            sent_alone += 1
            carry(serving, client, 3)
        sizes.append(len(data))
    assert 1 < sent_alone < 8
    assert sizes[-1] * 3 < sizes[0]  # and the table is in use all the same


def test_a_section_waits_for_the_encoder_stream_and_goes_on() -> None:
    client, serving = pair()
    waiting = None
    for stream_id in range(0, 40, 4):
        data = client.send_section(stream_id, client.head_section(LARGE)) + encode_frame(FrameType.DATA, b"body")
        if serving.receive_request(stream_id, data, end=True) == []:
            waiting = stream_id
            break
        carry(serving, client, 3)
    assert waiting is not None, "the encoder never referred to an entry that was not there yet"
    assert serving.is_blocked(waiting)
    assert Unblocked(waiting) in carry(client, serving, 2)
    assert not serving.is_blocked(waiting)
    assert serving.receive_request(waiting, b"") == [Head(LARGE), MessageData(b"body"), MessageEnd()]


def test_a_waiting_section_can_be_abandoned() -> None:
    client, serving = pair()
    for stream_id in range(0, 40, 4):
        fields = client.head_section(LARGE)
        serving.receive_request(stream_id, client.send_section(stream_id, fields))
        if serving.is_blocked(stream_id):
            break
        carry(serving, client, 3)
    assert serving.is_blocked(stream_id)
    serving.abandon(stream_id)
    assert Unblocked(stream_id) not in carry(client, serving, 2)
    carry(serving, client, 3)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (REQUEST[1:], "method"),
        (REQUEST[:3], "path"),
        ([*REQUEST, (b":path", b"/")], "repeated"),
        ([(b"a", b"b"), *REQUEST], "field name"),
        ([*REQUEST, (b"Upper", b"x")], "lower case"),
        ([*REQUEST, (b"a", b"b\nc")], "forbidden"),
        ([*REQUEST, (b"a", b" b")], "forbidden"),
        ([*REQUEST, (b"connection", b"close")], "meaning"),
        ([*REQUEST, (b"te", b"gzip")], "meaning"),
        ([*REQUEST, (b"host", b"other.test")], "several hosts"),
        ([*REQUEST, (b"content-length", b"-1")], "content-length"),
        ([*REQUEST[:2], REQUEST[3]], "no host"),
        ([*REQUEST[:3], (b":path", b"x")], "absolute"),
        ([(b":status", b"200")], "unknown"),
        ([(b":method", b"CONNECT"), *REQUEST[1:]], "CONNECT"),
    ],
)
def test_a_malformed_request_costs_its_stream_only(fields: list[tuple[bytes, bytes]], complaint: str) -> None:
    core = server()
    with pytest.raises(H3Error, match=complaint) as error:
        core.receive_request(4, plain(fields))
    assert (error.value.code, error.value.stream_id) == (ErrorCode.MESSAGE_ERROR, 4)
    core.abandon(4)
    assert core.receive_request(8, plain(REQUEST), end=True)[-1] == MessageEnd()


@pytest.mark.parametrize(
    ("data", "code", "stream_id"),
    [
        (encode_frame(FrameType.DATA, b"x"), ErrorCode.FRAME_UNEXPECTED, None),
        (encode_frame(FrameType.DATA, b""), ErrorCode.FRAME_UNEXPECTED, None),
        (encode_frame(FrameType.SETTINGS, b""), ErrorCode.FRAME_UNEXPECTED, None),
        (encode_frame(0x6, b""), ErrorCode.FRAME_UNEXPECTED, None),
        (plain(REQUEST) + plain([(b"a", b"b")]) + encode_frame(FrameType.DATA, b""), ErrorCode.FRAME_UNEXPECTED, None),
        (plain(REQUEST) + plain([(b"a", b"b")]) * 2, ErrorCode.FRAME_UNEXPECTED, None),
        (plain(REQUEST)[:-1], ErrorCode.FRAME_ERROR, None),
        (plain(REQUEST) + b"\x00\x05abc", ErrorCode.FRAME_ERROR, None),
        (b"", ErrorCode.REQUEST_INCOMPLETE, 0),
        (encode_frame(0x21, b"reserved"), ErrorCode.REQUEST_INCOMPLETE, 0),
        (plain([*REQUEST, (b"content-length", b"3")]) + encode_frame(0, b"ab"), ErrorCode.MESSAGE_ERROR, 0),
        (plain([*REQUEST, (b"content-length", b"3")]) + encode_frame(0, b"abcd"), ErrorCode.MESSAGE_ERROR, 0),
        (plain([*REQUEST, *[(b"a", b"b")] * 256]), ErrorCode.EXCESSIVE_LOAD, 0),
        (b"\x01\x80\x01\x00\x00", ErrorCode.EXCESSIVE_LOAD, 0),
        (encode_frame(FrameType.HEADERS, b"\x00"), ErrorCode.QPACK_DECOMPRESSION_FAILED, None),
        (encode_frame(FrameType.HEADERS, b"\x00\x00\xff\xff"), ErrorCode.QPACK_DECOMPRESSION_FAILED, None),
    ],
)
def test_a_request_stream_keeps_the_rules(data: bytes, code: ErrorCode, stream_id: int | None) -> None:
    with pytest.raises(H3Error) as error:
        server().receive_request(0, data, end=True)
    assert (error.value.code, error.value.stream_id) == (code, stream_id)


SETTINGS = encode_settings({})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x00" + encode_frame(0x21, b""), ErrorCode.MISSING_SETTINGS),
        (b"\x00" + SETTINGS + SETTINGS, ErrorCode.FRAME_UNEXPECTED),
        (b"\x00" + encode_settings({0x2: 1}), ErrorCode.SETTINGS_ERROR),
        (b"\x00" + encode_frame(FrameType.SETTINGS, b"\x01\x00\x01\x00"), ErrorCode.SETTINGS_ERROR),
        (b"\x00" + encode_frame(FrameType.SETTINGS, b"\x01"), ErrorCode.FRAME_ERROR),
        (b"\x00" + SETTINGS + encode_frame(FrameType.DATA, b""), ErrorCode.FRAME_UNEXPECTED),
        (b"\x00" + SETTINGS + encode_frame(FrameType.GOAWAY, b""), ErrorCode.FRAME_ERROR),
        (b"\x00" + SETTINGS + encode_frame(FrameType.GOAWAY, b"\x00\x00"), ErrorCode.FRAME_ERROR),
        (b"\x00" + SETTINGS + b"\x07\x01\x00\x07\x01\x04", ErrorCode.ID_ERROR),
        (b"\x00" + SETTINGS + b"\x0d\x01\x05\x0d\x01\x04", ErrorCode.ID_ERROR),
        (b"\x00" + SETTINGS + b"\x03\x01\x00", ErrorCode.ID_ERROR),
        (b"\x01", ErrorCode.STREAM_CREATION_ERROR),
        (b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", ErrorCode.QPACK_ENCODER_STREAM_ERROR),
        (b"\x03\x84", ErrorCode.QPACK_DECODER_STREAM_ERROR),
    ],
)
def test_unidirectional_streams_keep_the_rules(data: bytes, code: ErrorCode) -> None:
    with pytest.raises(H3Error) as error:
        server().receive_unidirectional(CONTROL, data)
    assert (error.value.code, error.value.stream_id) == (code, None)


@pytest.mark.parametrize("kind", [StreamType.CONTROL, StreamType.ENCODER, StreamType.DECODER])
def test_critical_streams_come_once_and_stay(kind: StreamType) -> None:
    core = server()
    core.receive_unidirectional(2, bytes((kind,)))
    with pytest.raises(H3Error) as error:
        core.receive_unidirectional(6, bytes((kind,)))
    assert error.value.code is ErrorCode.STREAM_CREATION_ERROR
    with pytest.raises(H3Error) as error:
        core.receive_unidirectional(2, b"", end=True)
    assert error.value.code is ErrorCode.CLOSED_CRITICAL_STREAM


def test_unknown_streams_and_frames_are_passed_over() -> None:
    core = server()
    assert core.receive_unidirectional(2, b"\x40") == []
    assert core.receive_unidirectional(2, b"\x21 grease") == [Unwanted(2)]
    data = encode_frame(0x21, b"x" * 100_000) + plain(REQUEST) + encode_frame(0x40, b"y")
    assert [type(event) for event in core.receive_request(0, data, end=True)] == [Head, MessageEnd]


def test_goaway_is_told_and_only_goes_down() -> None:
    client, serving = pair()
    serving.send_goaway(8)
    serving.send_goaway(12)
    assert carry(serving, client, 3) == [GoAway(8)]
    assert (client.peer_goaway, serving.goaway) == (8, 8)


def test_an_answer_to_head_may_announce_content_that_does_not_come() -> None:
    client, serving = pair()
    request = RequestHead(b"HEAD", b"a.test")
    serving.receive_request(0, client.send_section(0, client.head_section(request)), end=True)
    answer = ResponseHead(200, ((b"content-length", b"5"),))
    data = serving.send_section(0, serving.head_section(answer))
    carry(serving, client, 3)
    assert client.receive_request(0, data, end=True) == [Head(answer), MessageEnd()]


def test_a_section_larger_than_the_peer_takes_is_not_sent() -> None:
    client, serving = H3Core(is_client=True), H3Core(is_client=False, config=H3Config(field_section_size=200))
    open_streams(client, 3)
    carry(serving, client, 3)
    with pytest.raises(LocalProtocolError, match="200"):
        client.head_section(RequestHead(b"GET", b"a.test", b"/", ((b"x", b"y" * 200),)))
    with pytest.raises(LocalProtocolError, match="malformed"):
        client.trailer_section([(b":path", b"/")])


def test_a_block_that_would_expand_is_refused_before_it_does() -> None:
    core = server()
    core.receive_unidirectional(ENCODER, b"\x02\x3f\xe1\x1f")  # capacity 4096
    core.receive_unidirectional(ENCODER, b"\x41x\x7f\xd1\x1e" + b"y" * 4048)  # one entry that fills it
    with pytest.raises(H3Error) as error:
        core.receive_request(0, encode_frame(FrameType.HEADERS, b"\x02\x00" + b"\x80" * 16_000))
    assert error.value.code is ErrorCode.EXCESSIVE_LOAD
    core.abandon(0)
    with pytest.raises(H3Error) as error:  # few enough lines, and yet more than a section may be
        core.receive_request(4, encode_frame(FrameType.HEADERS, b"\x02\x00" + b"\x80" * 100))
    assert error.value.code is ErrorCode.EXCESSIVE_LOAD


def test_what_waits_is_bounded() -> None:
    core = H3Core(is_client=False, config=H3Config(held_size=1000))
    assert core.receive_request(0, encode_frame(FrameType.HEADERS, b"\x02\x00\x80")) == []
    with pytest.raises(H3Error) as error:
        core.receive_request(0, bytes(2000))
    assert error.value.code is ErrorCode.EXCESSIVE_LOAD


# --- any bytes -----------------------------------------------------------------------------------------------------

SEEDS = st.sampled_from(
    [
        plain(REQUEST),
        plain([(b"a", b"b")]),
        encode_frame(FrameType.HEADERS, b"\x02\x00\x80"),
        encode_frame(FrameType.HEADERS, b"\x03\x80\x10\x80"),
        b"\x00",
        b"\x02\x3f\xe1\x1f",
        b"\x41x\x01y",
        b"\x03",
        SETTINGS,
        encode_settings({1: 4096, 7: 16, 6: 100}),
        b"\x00\x03abc",
        b"\x07\x01\x00",
        b"\x21\x01x",
    ]
)
BYTES = st.binary(max_size=40) | SEEDS | st.lists(SEEDS, max_size=5).map(b"".join)
STEPS = st.lists(st.tuples(st.sampled_from(range(12)), BYTES, st.booleans(), st.booleans()), max_size=30)


@given(steps=STEPS, is_client=st.booleans())
def test_any_bytes_on_any_stream_give_events_or_the_one_error(
    steps: list[tuple[int, bytes, bool, bool]], is_client: bool
) -> None:
    core = H3Core(is_client=is_client)
    ended: set[int] = set()
    for stream_id, data, end, abandon in steps:
        if stream_id in ended:
            continue
        if end:
            ended.add(stream_id)
        try:
            if stream_id & 2:
                core.receive_unidirectional(stream_id, data, end=end)
            else:
                core.receive_request(stream_id, data, end=end)
                if abandon and end:
                    core.abandon(stream_id)
        except H3Error as error:
            if error.stream_id is None:
                break
            ended.add(stream_id)
            core.abandon(stream_id)
        for blocked in range(0, 12):
            if not blocked & 2 and blocked in core._unblocked:
                try:
                    core.receive_request(blocked, b"")
                except H3Error as error:
                    if error.stream_id is None:
                        return
                    core.abandon(blocked)
        core.take_output()


@given(block=st.binary(max_size=60))
def test_a_block_is_counted_or_refused(block: bytes) -> None:
    with suppress(H3Error):
        assert count_field_lines(block) <= len(block)


@given(kind=st.integers(0, 0x100), size=st.integers(0, 0x5000))
def test_a_frame_header_is_two_integers(kind: int, size: int) -> None:
    assert frame_header(kind, size) == encode_varint(kind) + encode_varint(size)


@given(payload=st.binary(max_size=40))
def test_settings_decode_or_are_refused(payload: bytes) -> None:
    try:
        settings = decode_settings(payload)
    except H3Error:
        return
    assert decode_settings(encode_settings(settings)[2:]) == settings


# --- two cores, any split ------------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"x-a", b"x-bb", b"accept", b"x-a-longer-field-name"])
VALUES = st.binary(max_size=20).map(lambda value: value.hex().encode())
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
CONTENT = st.lists(st.binary(min_size=1, max_size=200), max_size=4)


def joined(events: list[RequestEvent]) -> list[RequestEvent]:
    """The same events with neighbouring content in one piece."""
    result: list[RequestEvent] = []
    for event in events:
        if isinstance(event, MessageData) and result and isinstance(result[-1], MessageData):
            result[-1] = MessageData(result[-1].data + event.data)
        else:
            result.append(event)
    return result


@given(messages=st.lists(st.tuples(FIELDS, CONTENT, FIELDS), min_size=1, max_size=5), data=st.data())
def test_two_cores_agree_however_bytes_are_split(
    messages: list[tuple[tuple[tuple[bytes, bytes], ...], list[bytes], tuple[tuple[bytes, bytes], ...]]],
    data: st.DataObject,
) -> None:
    client, serving = H3Core(is_client=True), server()
    open_streams(client, 3)
    queues: dict[int, bytearray] = {2 + 4 * kind: bytearray((kind,)) for kind in (0, 2, 3)}
    expected: dict[int, list[RequestEvent]] = {}
    got: dict[int, list[RequestEvent]] = {}
    carry(serving, client, 3)  # so that the client may use the dynamic table
    for number, (headers, content, trailers) in enumerate(messages):
        stream_id = 4 * number
        head = RequestHead(b"POST", b"a.test", b"/", headers)
        stream = bytearray(client.send_section(stream_id, client.head_section(head)))
        for chunk in content:
            stream += encode_frame(FrameType.DATA, chunk)
        expected[stream_id] = [Head(head)]
        if content:
            expected[stream_id].append(MessageData(b"".join(content)))
        if trailers:
            stream += client.send_section(stream_id, client.trailer_section(trailers))
            expected[stream_id].append(Trailers(trailers))
        expected[stream_id].append(MessageEnd())
        queues[stream_id], got[stream_id] = stream, []
    for kind, output in client.take_output():
        queues[2 + 4 * kind] += output
    while open_ids := [key for key, queue in queues.items() if queue and not serving.is_blocked(key)]:
        stream_id = data.draw(st.sampled_from(open_ids))
        size = data.draw(st.integers(1, len(queues[stream_id])))
        piece = bytes(queues[stream_id][:size])
        del queues[stream_id][:size]
        if stream_id & 2:
            for event in serving.receive_unidirectional(stream_id, piece):
                if isinstance(event, Unblocked):
                    got[event.stream_id] += serving.receive_request(event.stream_id, b"")
        else:
            got[stream_id] += serving.receive_request(stream_id, piece, end=not queues[stream_id])
    assert {key: joined(events) for key, events in got.items()} == expected
    carry(serving, client, 3)  # the acknowledgements make sense to the encoder


ANSWER = [(b":status", b"200")]
FRAMES = st.sampled_from(
    [
        plain(REQUEST),
        plain([*REQUEST, (b"content-length", b"3")]),
        plain(ANSWER),
        plain([*ANSWER, (b"content-length", b"3")]),
        plain([(b":status", b"103")]),
        plain([(b":status", b"204")]),
        plain([(b"a", b"b")]),
        encode_frame(FrameType.HEADERS, b"\x02\x00\x80"),
        encode_frame(FrameType.HEADERS, b"\x00\x00\xff"),
        encode_frame(FrameType.DATA, b""),
        encode_frame(FrameType.DATA, b"abc"),
        encode_frame(FrameType.DATA, b"x" * 100),
        b"\x00\x05abc",
        b"\x40\x00\x01x",
        b"\x21\x01x",
        b"\x01",
        b"",
    ]
)


def outcome(core: H3Core, pieces: list[bytes], stream_id: int) -> tuple[list[RequestEvent], object]:
    """What a stream that comes in these pieces gives, and whether it waits for the table; or the error alone."""
    events: list[RequestEvent] = []
    try:
        for number, piece in enumerate(pieces, 1):
            events += core.receive_request(stream_id, piece, end=number == len(pieces))
    except H3Error as error:
        return [], (error.code, error.stream_id)
    return joined(events), core.is_blocked(stream_id)


@given(frames=st.lists(FRAMES, max_size=3).map(b"".join), is_client=st.booleans(), to_head=st.booleans())
def test_a_message_that_comes_whole_is_read_as_one_in_pieces(frames: bytes, is_client: bool, to_head: bool) -> None:
    whole, split = H3Core(is_client=is_client), H3Core(is_client=is_client)
    if to_head:
        for core in (whole, split):
            core.send_section(0, core.head_section(RequestHead(b"HEAD", b"a.test")))
    pieces = [frames[offset : offset + 1] for offset in range(len(frames))] or [b""]
    expected = outcome(split, pieces, 0)
    assert outcome(whole, [frames], 0) == expected
    if expected[1] is False:  # and so does one that is known
        whole.forget(0)
        assert outcome(whole, [frames], 4) == outcome(split, pieces, 4)


def test_a_section_means_something_else_when_the_table_has_changed() -> None:
    core = H3Core(is_client=False, config=H3Config(table_capacity=64))  # one entry, and insert counts modulo 4
    core.receive_unidirectional(ENCODER, b"\x02\x3f\x21" + b"\x41x\x01y")
    data = encode_frame(FrameType.HEADERS, b"\x02\x80" + plain(REQUEST)[4:] + b"\x10")  # ends in the newest entry

    def last_field(stream_id: int) -> tuple[bytes, bytes]:
        event = core.receive_request(stream_id, data, end=True)[0]
        assert isinstance(event, Head)
        return event.head.headers[-1]

    assert (last_field(0), last_field(4)) == ((b"x", b"y"), (b"x", b"y"))
    core.receive_unidirectional(ENCODER, b"\x41x\x01z" * 4)
    assert last_field(508) == (b"x", b"z")
    assert dict(core.take_output())[StreamType.DECODER] == b"\x80\x84\xff\xfd\x02"
