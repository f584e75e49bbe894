from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2al_trio.errors import ConfigurationError
from a2al_trio.signaling.room import room_id
from a2al_trio.signaling.urls import callee_url, caller_url, hub_from_bootstrap, subscribe_url

CALLER = "A034750f98bD59fcFc946Da45aaAbe933bE154a4B5"
CALLEE = "a06A3803d5F059902a1c6daFBc9bA4729212F7caaC"


def test_the_example_of_the_specification() -> None:
    assert room_id(CALLER, CALLEE) == room_id(CALLEE, CALLER) == "7f91070f0fd9f3a54d8409aed8f63718"
    assert room_id("alice", "bob") == "1cb15457d1ddab60e205c0fe3ca2f65d"
    assert caller_url("ws://hub.example:4121", local=CALLER, remote=CALLEE) == (
        f"ws://hub.example:4121/ice?caller={CALLER}&room=7f91070f0fd9f3a54d8409aed8f63718&target={CALLEE}"
    )


def test_a_callee_names_itself_for_hubs_that_can_use_it() -> None:
    assert callee_url("ws://hub:1", local=CALLEE, remote=CALLER) == (
        f"ws://hub:1/ice?callee={CALLEE}&room=7f91070f0fd9f3a54d8409aed8f63718"
    )


@pytest.mark.parametrize("base", ["http://hub:1", "hub:4121", "", "ws://a b/", "ws://[::1", "ws://h:x"])
def test_a_bad_base_names_the_fix(base: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ws|malformed"):
        subscribe_url(base)


@given(st.text(max_size=40))
def test_any_text_is_a_base_or_a_configuration_error(text: str) -> None:
    for function in (subscribe_url, hub_from_bootstrap, lambda base: callee_url(base, local="a", remote="b")):
        try:
            function(text)
        except ConfigurationError:
            continue
