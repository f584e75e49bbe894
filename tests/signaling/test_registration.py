from __future__ import annotations

import os
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed

from a2al_trio.identity import Identity, SigningKey, issue_delegation
from a2al_trio.signaling import Hub, HubLimits, open_signaling, prove_registration
from a2al_trio.signaling.frames import Frame, FrameType
from a2al_trio.signaling.hub import serve_hub
from a2al_trio.signaling.registration import PROOF_LIFE, is_proven
from a2al_trio.signaling.rooms import Registry
from a2al_trio.signaling.websocket import open_hub_socket, send_frame
from tests.signaling.world import HubWorld

NOW = 1_800_000_000
HUB = "hub.example:4121"
ALICE, BOB = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
Clock = trio.testing.MockClock


def test_an_agent_proves_itself() -> None:
    proof = prove_registration(ALICE, HUB, unix_time=NOW)
    name = str(ALICE.address)
    assert is_proven(name, proof, HUB, unix_time=NOW)
    assert is_proven(name, proof, HUB.upper(), unix_time=NOW + PROOF_LIFE)
    assert not is_proven(name, proof, HUB, unix_time=NOW + PROOF_LIFE + 1)
    assert not is_proven(name, proof, "other:4121", unix_time=NOW)
    assert not is_proven(str(BOB.address), proof, HUB, unix_time=NOW)


def test_a_delegated_agent_proves_itself_while_the_delegation_holds() -> None:
    key = SigningKey.generate(os.urandom)
    proof = issue_delegation(ALICE.key, key.public_key, issued_at=NOW - 10, expires_at=NOW + 100)
    delegated = Identity.delegated(key, proof.encode(), now=NOW)
    text = prove_registration(delegated, HUB, unix_time=NOW)
    assert is_proven(str(ALICE.address), text, HUB, unix_time=NOW)
    assert not is_proven(str(ALICE.address), text, HUB, unix_time=NOW + 200)
    assert not is_proven(str(BOB.address), text, HUB, unix_time=NOW)


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_is_no_proof(agent: str, proof: str) -> None:
    assert not is_proven(agent, proof, HUB, unix_time=NOW)


@given(st.integers(0, 139), st.characters(codec="ascii"))
@example(58, "+")
@example(139, "B")
def test_a_proof_with_another_character_is_none(index: int, character: str) -> None:
    proof = prove_registration(ALICE, HUB, unix_time=NOW)
    other = proof[:index] + character + proof[index + 1 :]
    if other != proof:
        assert not is_proven(str(ALICE.address), other, HUB, unix_time=NOW)


def test_a_proven_registration_gives_way_to_a_proven_one_alone() -> None:
    registry: Registry[str] = Registry(9)
    registry.register("a", "stranger")
    registry.register("a", "owner", proven=True)
    assert registry.find("a") == "owner"
    registry.register("a", "stranger")
    assert registry.find("a") == "owner"
    registry.register("a", "owner on another machine", proven=True)
    assert registry.find("a") == "owner on another machine"
    registry.forget("owner on another machine")
    registry.register("a", "stranger")
    assert registry.find("a") == "stranger"
    assert not registry.is_proven("a", "stranger")


async def test_a_squatter_does_not_get_the_calls(autojump_clock: Clock) -> None:
    def unix_time() -> float:
        return NOW + trio.current_time()

    def prove(agent: str, authority: str) -> str:
        assert agent == str(ALICE.address)
        return prove_registration(ALICE, authority, unix_time=int(unix_time()))

    async with trio.open_nursery() as nursery:
        hub = Hub(unix_time=unix_time)
        world = HubWorld(nursery, {"hub": hub})
        name = str(ALICE.address)
        async with (
            open_signaling(["ws://hub:4121"], [name], prove=prove, dial=world.dial) as signaling,
            open_hub_socket("ws://hub:4121/signal", dial=world.dial) as squatter,
        ):
            await trio.sleep(1)
            await send_frame(squatter, Frame(type=FrameType.REGISTER, agent=name))
            assert await squatter.get_message()
            assert hub.stats.callees_connected == 1
            async with open_hub_socket(f"ws://hub/ice?room=r&caller=x&target={name}", dial=world.dial):
                with trio.move_on_after(5) as waited:
                    await squatter.get_message()
                assert waited.cancelled_caught
            assert signaling.active_hubs
            await trio.sleep(1000)
            assert hub.stats.aids_registered == 1
        nursery.cancel_scope.cancel()


async def test_a_hub_may_insist_on_proof(autojump_clock: Clock) -> None:
    async with trio.open_nursery() as nursery:
        world = HubWorld(nursery, {"hub": Hub(HubLimits(proven_only=True))})
        async with open_hub_socket("ws://hub/signal", dial=world.dial) as socket:
            await send_frame(socket, Frame(type=FrameType.REGISTER, agent=str(BOB.address)))
            with pytest.raises(ConnectionClosed) as closed:
                await socket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.reason == "the registration is not proven"
        nursery.cancel_scope.cancel()


async def test_the_name_of_the_hub_is_the_one_in_the_request(no_leaks: None) -> None:
    hub = Hub(HubLimits(proven_only=True), unix_time=lambda: NOW)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(partial(serve_hub, "127.0.0.1", 0, hub=hub))
            async with open_signaling(
                [f"ws://{address}"],
                [str(ALICE.address)],
                prove=lambda agent, authority: prove_registration(ALICE, authority, unix_time=NOW),
            ):
                while not hub.stats.aids_registered:
                    await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
