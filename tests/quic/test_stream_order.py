from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.quic.stream_order import URGENCIES

from .pair import Pair

STEPS = st.tuples(st.sampled_from(["write", "more", "urgency", "reset", "flush"]), st.integers(0, 5), st.integers(0, 7))


@given(st.lists(STEPS, max_size=25))
def test_a_lone_stream_is_the_only_one_in_the_order(steps: list[tuple[str, int, int]]) -> None:
    pair = Pair()
    client, _ = pair.handshake()
    order = client.streams.order
    streams = [stream for _ in range(6) if (stream := client.open_stream()) is not None]
    finished: set[int] = set()
    for step, index, number in steps:
        stream = streams[index]
        if step == "urgency":
            client.set_urgency(stream, number % URGENCIES)
        elif step == "flush":
            pair.flush(pair.client)
        elif step == "reset":
            client.reset(stream, 0)
            finished.add(stream)
        elif stream not in finished:
            client.write(stream, bytes(number), step == "write")
            finished |= {stream} if step == "write" else set()
        waiting = [half for level in order._by_urgency for half in level.values()]
        assert order.levels == sum({1 << half.urgency for half in waiting})
        assert order.lone is None or [order.lone] == waiting
    pair.run(seconds=1)
    assert order.lone is None
