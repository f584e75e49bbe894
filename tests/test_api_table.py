"""Every item of the host API (spec 04 §20): where it is, that it is documented, and which test shows it.

An item is reached by `module:Name.attribute`; its documentation is a docstring, or the string after an attribute.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent

HOST = "a2al_trio.host:Host"
CONFIG = "a2al_trio.host:HostConfig"
CONNECTION = "a2al_trio.host:AgentConnection"
MAILBOX = "a2al_trio.host.mailbox:Mailbox"
TOPICS = "a2al_trio.host.topics:Topics"
SURROUNDINGS = "a2al_trio.host.network:Surroundings"
POOL = "a2al_trio.punch.pool:PunchPool"
MEETING, TARGETS = "host/test_meeting.py", "host/test_targets.py"

# (item, where it is, the test that shows it)
TABLE: list[tuple[str, str, str]] = [
    ("ALPNQuic", "a2al_trio.host:ALPN", f"{MEETING}::test_publish_resolve_connect_echo"),
    (
        "DefaultConnectStagger",
        "a2al_trio.host:CONNECT_STAGGER",
        f"{MEETING}::test_the_next_endpoint_is_tried_after_250_ms",
    ),
    ("DefaultICEStagger", "a2al_trio.host:ICE_STAGGER", "host/test_ice_meeting.py::test_agents_behind_nats_meet"),
    (
        "ErrNoAgent",
        "a2al_trio.signaling:NoAgent",
        "signaling/test_client.py::test_an_absent_agent_is_called_three_times_at_every_hub",
    ),
    (
        "FirstQUICAddr",
        "a2al_trio.host.targets:endpoints_of",
        f"{TARGETS}::test_quic_and_udp_urls_are_taken_in_order_once",
    ),
    (
        "QUICDialTargets",
        "a2al_trio.host.targets:endpoints_of",
        f"{TARGETS}::test_quic_and_udp_urls_are_taken_in_order_once",
    ),
    (
        "PeerAddressFromConn",
        "a2al_trio.identity:peer_address",
        "identity/test_certificate.py::test_a_delegated_certificate_authenticates_the_owner",
    ),
    ("AgentConn", CONNECTION, f"{MEETING}::test_both_sides_know_whom_they_talk_to"),
    ("AgentConn.Local", f"{CONNECTION}.local", f"{MEETING}::test_many_agents_share_one_socket"),
    ("AgentConn.Remote", f"{CONNECTION}.remote", f"{MEETING}::test_both_sides_know_whom_they_talk_to"),
    ("Config", CONFIG, "host/test_settings.py::test_every_simple_setting_can_be_given"),
    ("Config.KeyStore", "a2al_trio.host:open_host", "cli/test_cli.py::test_the_demo_meets_and_echoes"),
    ("Config.ListenAddr", f"{CONFIG}.listen", "host/test_settings.py::test_a_file_of_the_reference_daemon"),
    (
        "Config.QUICListenAddr",
        f"{CONFIG}.quic_listen",
        "host/test_network.py::test_in_the_split_layout_each_socket_is_sensed_by_itself",
    ),
    ("Config.PrivateKey", "a2al_trio.identity:Identity", "identity/test_identity.py::*"),
    (
        "Config.MinObservedPeers",
        f"{CONFIG}.min_observed_peers",
        "host/test_settings.py::test_a_file_of_the_reference_daemon",
    ),
    ("Config.FallbackHost", f"{CONFIG}.fallback_host", "host/test_candidates.py::*"),
    ("Config.DisableUPnP", f"{CONFIG}.port_mapping", "host/test_network.py::test_a_mapped_port_is_advertised"),
    (
        "Config.ICESignalURL",
        f"{CONFIG}.signal_urls",
        "host/test_settings.py::test_a_list_of_hubs_wins_over_the_single_one",
    ),
    ("Config.ICESignalURLs", f"{CONFIG}.signal_urls", "host/test_ice_meeting.py::test_agents_behind_nats_meet"),
    ("Config.ICESTUNURLs", f"{CONFIG}.stun_servers", "host/test_network.py::test_a_named_server_is_enough"),
    (
        "Config.ICETURNURLs",
        f"{CONFIG}.turn_servers",
        "host/test_settings.py::test_relays_with_credentials_in_their_url_come_first",
    ),
    ("Config.TURNServers", f"{CONFIG}.turn_servers", "host/test_ice_meeting.py::test_hopeless_pairs_meet_over_a_relay"),
    ("Config.SeenPeersPath", f"{CONFIG}.data_dir", "host/test_restart.py::test_a_host_that_restarts_is_found_again"),
    ("TURNServer", "a2al_trio.ice.servers:TurnServer", "host/test_settings.py::test_a_file_of_the_reference_daemon"),
    ("TURNCredentialStatic", "a2al_trio.ice.servers:StaticCredentials", "ice/test_servers.py::*"),
    ("TURNCredentialHMAC", "a2al_trio.ice.servers:HmacCredentials", "ice/test_servers.py::*"),
    ("TURNCredentialRESTAPI", "a2al_trio.ice.servers:RestCredentials", "ice/test_servers.py::*"),
    ("Host", HOST, f"{MEETING}::test_publish_resolve_connect_echo"),
    ("New", "a2al_trio.host:open_host", "debug/test_server.py::test_served_on_loopback_until_cancelled"),
    ("Close", "a2al_trio.host:open_host", f"{MEETING}::test_a_host_that_ends_says_goodbye"),
    ("Accept", f"{HOST}.accept", f"{MEETING}::test_both_sides_know_whom_they_talk_to"),
    (
        "AcceptICEViaSignal",
        "a2al_trio.host.meet:Meetings.answer",
        "host/test_ice_meeting.py::test_many_at_once_reach_one_agent",
    ),
    ("Address", f"{HOST}.address", "debug/test_app.py::test_host_page"),
    ("Node", f"{HOST}.dht", "host/test_mailbox.py::test_a_note_is_polled_once_and_says_from_whom"),
    ("Sense", f"{HOST}.sense", "host/test_network.py::test_the_host_tells_what_it_senses"),
    ("DHTLocalAddr", f"{HOST}.dht_address", "debug/test_app.py::test_host_page"),
    ("LocalUDPAddr", f"{HOST}.dht_address", "debug/test_app.py::test_host_page"),
    ("QUICLocalAddr", f"{HOST}.quic_address", f"{MEETING}::test_publish_resolve_connect_echo"),
    ("Connect", f"{HOST}.connect", f"{MEETING}::test_both_sides_know_whom_they_talk_to"),
    ("ConnectFromRecord", f"{HOST}.connect", f"{MEETING}::test_the_next_endpoint_is_tried_after_250_ms"),
    ("ConnectFromRecordFor", f"{HOST}.connect", f"{MEETING}::test_a_delegated_agent_is_dialled_and_dials"),
    ("Resolve", f"{HOST}.resolve", f"{MEETING}::test_publish_resolve_connect_echo"),
    ("FindRecords", f"{HOST}.find_records", "host/test_records.py::test_records_of_several_types_and_agents"),
    ("BuildEndpointPayload", f"{HOST}.build_endpoint_payload", "host/test_candidates.py::*"),
    ("PublishEndpoint", f"{HOST}.publish_endpoint", "host/test_restart.py::test_endpoints_are_published_as_told"),
    ("PublishEndpointBuilt", f"{HOST}.publish_endpoint", "host/test_restart.py::test_endpoints_are_published_as_told"),
    (
        "PublishEndpointForAgent",
        f"{HOST}.publish_endpoint",
        "host/test_restart.py::test_endpoints_are_published_as_told",
    ),
    ("PublishRecord", f"{HOST}.publish_record", "host/test_records.py::test_a_ready_record_is_published"),
    ("RegisterAgent", f"{HOST}.register_agent", f"{MEETING}::test_many_agents_share_one_socket"),
    ("RegisterDelegatedAgent", f"{HOST}.register_agent", f"{MEETING}::test_a_delegated_agent_is_dialled_and_dials"),
    ("UnregisterAgent", f"{HOST}.unregister_agent", "host/test_mailbox.py::test_the_iterator_of_an_agent_ends_with_it"),
    ("RegisteredAgents", f"{HOST}.agents", "debug/test_app.py::test_host_page"),
    ("SendMailbox", f"{MAILBOX}.send", "host/test_mailbox.py::test_a_note_is_polled_once_and_says_from_whom"),
    (
        "SendMailboxForAgent",
        f"{MAILBOX}.send",
        "host/test_mailbox.py::test_mail_goes_to_and_from_every_agent_of_a_host",
    ),
    ("PollMailbox", f"{MAILBOX}.poll", "host/test_mailbox.py::test_a_note_is_polled_once_and_says_from_whom"),
    (
        "PollMailboxForAgent",
        f"{MAILBOX}.poll",
        "host/test_mailbox.py::test_mail_goes_to_and_from_every_agent_of_a_host",
    ),
    ("DecryptMailboxRecords", f"{MAILBOX}.decrypt", "host/test_mailbox.py::test_forged_mail_is_left_out"),
    ("RegisterTopic", f"{TOPICS}.register", "host/test_topics.py::test_a_registration_is_kept_alive_and_runs_out"),
    ("RegisterTopicForAgent", f"{TOPICS}.announce", "host/test_topics.py::test_the_intersection_of_topics"),
    ("RegisterTopics", f"{TOPICS}.announce", "host/test_topics.py::test_the_intersection_of_topics"),
    ("RegisterTopicsForAgent", f"{TOPICS}.register", "host/test_topics.py::test_partial_success_is_reported"),
    ("SearchTopic", f"{TOPICS}.search", "host/test_topics.py::test_filters_by_protocol_and_tag"),
    ("SearchTopics", f"{TOPICS}.search_all", "host/test_topics.py::test_the_intersection_of_topics"),
    ("ObserveFromPeers", f"{HOST}.observe_from_peers", "host/test_network.py::test_asking_peers"),
    ("ObserveFromRouting", f"{HOST}.observe_from_routing", "host/test_network.py::test_asking_peers"),
    ("RunNATProbe", f"{HOST}.run_nat_probe", "host/test_network.py::test_only_one_probe_runs_at_a_time"),
    (
        "InvalidateNetworkCaches",
        f"{HOST}.invalidate_network_caches",
        "host/test_network.py::test_the_host_tells_what_it_senses",
    ),
    (
        "SymmetricNATReachabilityHint",
        f"{HOST}.nat_hint",
        "host/test_network.py::test_the_host_tells_what_it_senses",
    ),
    ("EffectiveICESignalBase", f"{HOST}.signal_urls", "host/test_restart.py::test_hubs_to_try_and_hubs_that_answer"),
    ("EffectiveICESignalURLs", f"{HOST}.signal_urls", "host/test_restart.py::test_hubs_to_try_and_hubs_that_answer"),
    # Both happen by themselves here: a host derives its hubs, and knows where it is registered.
    (
        "SetDerivedICESignalURLs",
        "a2al_trio.host.hubs:hub_candidates",
        "host/test_restart.py::test_hubs_to_try_and_hubs_that_answer",
    ),
    (
        "SetActiveSignalURLs",
        f"{HOST}.active_signal_urls",
        "host/test_restart.py::test_hubs_to_try_and_hubs_that_answer",
    ),
    ("SetSignalStatsProvider", f"{HOST}.signal_stats", "debug/test_app.py::test_statistics_take_what_providers_add"),
    ("SetBeaconStatsProvider", f"{HOST}.beacon_stats", "debug/test_app.py::test_statistics_take_what_providers_add"),
    ("DebugHTTPHandler", "a2al_trio.debug:debug_app", "debug/test_app.py::test_identity_routing_and_store_pages"),
    ("StartDebugHTTP", "a2al_trio.debug:serve_debug", "debug/test_server.py::test_served_on_loopback_until_cancelled"),
    ("DHTpunchPool", f"{HOST}.punches", "punch/test_pool.py::test_messages_pass_over_a_punched_connection"),
    ("DHTpunchPool.Punch", f"{POOL}.punch", "punch/test_pool.py::test_messages_pass_over_a_punched_connection"),
    ("DHTpunchPool.SendTo", f"{POOL}.send_to", "punch/test_pool.py::test_messages_pass_over_a_punched_connection"),
    ("DHTpunchPool.HasConn", f"{POOL}.has_conn", "punch/test_pool.py::test_messages_pass_over_a_punched_connection"),
    (
        "DHTpunchPool.ConnCount",
        f"{POOL}.conn_count",
        "punch/test_pool.py::test_both_nodes_punch_at_once_and_keep_one_connection",
    ),
    (
        "DHTpunchPool.HandleIncomingPunch",
        f"{POOL}.adopt",
        "punch/test_pool.py::test_messages_pass_over_a_punched_connection",
    ),
]
# Settings of the reference that nothing here has a use for, with the reason.
WITHOUT_COUNTERPART = {
    "Config.ICEPublishTurns": "the reference ignores it, too: TURN URLs are never published",
    "Config.Logger": "Python's own logging does it; each module logs under its name",
    "Config.ICENetworkTypes": "both address families are always gathered",
}


def test_no_item_is_there_twice_or_both_here_and_without_counterpart() -> None:
    items = [item for item, _, _ in TABLE]
    assert len(items) == len(set(items))
    assert not set(items) & set(WITHOUT_COUNTERPART)


@pytest.mark.parametrize(("item", "where", "test"), TABLE, ids=[item for item, _, _ in TABLE])
def test_an_item_is_there_documented_and_tested(item: str, where: str, test: str) -> None:
    assert documentation(where).strip(), f"{item}: {where} has no documentation"
    file, _, name = test.partition("::")
    functions = test_functions(TESTS / file)
    assert functions if name == "*" else name in functions, f"{item}: there is no {test}"


def test_functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    names = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return {name for name in names if name.startswith("test_")}


test_functions.__test__ = False  # type: ignore[attr-defined]


def documentation(where: str) -> str:
    """What is said about an item; fails if the item does not exist."""
    module_name, _, path = where.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    found = inspect.getattr_static(owner, name, None)
    if isinstance(found, (type, property)) or callable(found):
        return inspect.getdoc(found) or ""
    if inspect.ismodule(owner) and hasattr(owner, name):
        # A constant may be re-exported by its package.
        modules = [owner, *(importlib.import_module(f"{module_name}.{stem}") for stem in ("config",))]
        return next(text for module in modules if (text := said_after(inspect.getsource(module), name)) is not None)
    text = said_after(inspect.getsource(owner), name)
    assert text is not None, f"{where} does not exist"
    return text


def said_after(source: str, name: str) -> str | None:
    """The string that follows the assignment of a name or of `self.name`; None if there is no assignment."""
    for node in ast.walk(ast.parse(source)):
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(body, list):
                continue
            for statement, after in zip(body, [*body[1:], None], strict=True):
                if isinstance(statement, (ast.Assign, ast.AnnAssign)) and name in assigned(statement):
                    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                        return str(after.value.value)
                    return ""
    return None


def assigned(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    return names | {target.attr for target in targets if isinstance(target, ast.Attribute)}
