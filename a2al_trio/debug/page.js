"use strict";
// Everything shown is set as text, never as markup: names and addresses come from strangers.

const INTERVAL = 2000;
const ROWS = 500;
const base = location.pathname.endsWith("/") ? "" : "debug/";
let before = null;

const element = (id) => document.getElementById(id);
const short = (text) => (text.length > 20 ? `${text.slice(0, 10)}…${text.slice(-6)}` : text);

function size(bytes) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (bytes < 1024 || unit === "GiB") return `${bytes < 10 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`;
    bytes /= 1024;
  }
}

function list(id, pairs) {
  element(id).replaceChildren(...pairs.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    return [term, detail];
  }));
}

function table(id, rows) {
  element(id).tBodies[0].replaceChildren(...rows.slice(0, ROWS).map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const data = row.insertCell();
      data.textContent = typeof cell === "object" ? cell.text : cell;
      if (typeof cell === "object") data.title = cell.title;
    }
    return row;
  }));
}

const name = (text) => ({ text: short(text), title: text });

async function fetchSection(section) {
  const answer = await fetch(base + section);
  if (!answer.ok) throw new Error(`${section}: ${answer.status}`);
  return answer.json();
}

function showHost(host) {
  list("host", [
    ["AID", host.address],
    ["agents", host.agents.join("\n")],
    ["DHT", host.dht_addr],
    ["QUIC", host.quic_addr],
    ["seen as", host.observed_host ? `${host.observed_host}:${host.observed_port ?? "?"}` : "not known yet"],
    ["NAT", host.nat_type_label + (host.nat_bind_public ? ", public address" : "")],
  ]);
}

function showStats(stats, connections) {
  const now = performance.now();
  const sent = connections.reduce((sum, one) => sum + one.bytes_sent, 0);
  const received = connections.reduce((sum, one) => sum + one.bytes_received, 0);
  const seconds = before ? (now - before.now) / 1000 : 0;
  const rate = (value, old) => (seconds ? `, ${size(Math.max(0, value - old) / seconds)}/s` : "");
  list("stats", [
    ["sent to agents", size(sent) + rate(sent, before?.sent)],
    ["received from agents", size(received) + rate(received, before?.received)],
    ["DHT packets sent", stats.tx_packets],
    ["DHT packets received", stats.rx_packets_verified],
    ["DHT calls completed", stats.rpc_completed],
    ["network", `about ${stats.estimated_network_size} nodes, ${stats.unique_nodes_since_start} seen`],
  ]);
  before = { now, sent, received };
}

function showTables(connections, routing, store) {
  element("connection-count").textContent = connections.length;
  table("connections", connections.map((one) => [
    name(one.remote), name(one.local), one.incoming ? "by them" : "by us", one.path, `${one.rtt_ms} ms`,
    size(one.bytes_sent), size(one.bytes_received), one.packets_lost, one.open_streams,
  ]));
  element("peer-count").textContent = routing.total_peers;
  table("routing", (routing.peers ?? []).map((peer) => [
    peer.bucket, name(peer.node_id_hex), peer.ip.includes(":") ? `[${peer.ip}]:${peer.port}` : `${peer.ip}:${peer.port}`,
    peer.verified_ago ? `${peer.verified_ago} ago` : "",
  ]));
  const records = store ?? [];
  element("record-count").textContent = records.length;
  table("store", records.map((record) => [
    name(record.key_node_id_hex), name(record.address_hex), `0x${record.rec_type.toString(16).padStart(2, "0")}`,
    record.seq, new Date(1000 * (record.timestamp + record.ttl_seconds)).toLocaleTimeString(), record.payload_cbor_len,
  ]));
}

async function refresh() {
  const state = element("state");
  try {
    const [host, stats, connections, routing, store] = await Promise.all(
      ["host", "stats", "connections", "routing", "store"].map(fetchSection));
    showHost(host);
    showStats(stats, connections);
    showTables(connections, routing, store);
    state.textContent = `live, ${new Date().toLocaleTimeString()}`;
    state.className = "";
  } catch (error) {
    state.textContent = `no answer from the host (${error.message})`;
    state.className = "lost";
  }
  setTimeout(refresh, INTERVAL);
}

refresh();
