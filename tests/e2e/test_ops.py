# SPDX-License-Identifier: Apache-2.0
"""What operators see and say over NATS: services, statistics, refusals, commands, `docket top`."""

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections import Counter

import jsonschema
import pytest

from fleet import DOCKET, ROOT, wait_until
from nats_socket import Nats
from producer import Load, Producer, Tenant

TENANTS = 8
NODES = ["broker-0", "worker-0", "worker-1"]
ROLES = ["docket-broker", "docket-directory", "docket-worker"]
NAME = re.compile(r"^[A-Za-z0-9_-]+$")
SCHEMAS = os.path.join(ROOT, "schemas", "nats")
# The protocol's own schemas are not ours to ship; where they are at hand they are used.
PROTOCOL = os.path.join(ROOT, "..", "shared", "data", "nats_micro_schemas")


@pytest.fixture(scope="module")
def stage(session_folder):
    """A fleet of this module's own, with tenants."""
    from fleet import Fleet

    with Fleet(session_folder, data=os.path.join(session_folder, "ops")) as fleet:
        producer = Producer(fleet.public)
        tenants = [Tenant(producer) for _ in range(TENANTS)]
        producer.close()
        yield fleet, tenants
        fleet.scan_logs()
        fleet.kill_everything()  # nobody wants its data: an orderly stop would write it down


@pytest.fixture
def nats(stage):
    with Nats(stage[0]) as client:
        yield client


@pytest.fixture
def load(stage):
    running = Load(stage[0].public, stage[1])
    running.start()
    yield running
    if running.is_alive():
        running.stop()


def answers(nats, subject, **options):
    """Their JSON. With answers=N it waits for so many, otherwise for as long as bound_s says."""
    return [json.loads(one.data) for one in nats.ask(subject, **options)]


def check(schema, message, part=None):
    """Against one of our schemas, or one definition in it."""
    with open(os.path.join(SCHEMAS, f"{schema}.json"), encoding="utf-8") as stream:
        whole = json.load(stream)
    if part:
        whole["$ref"] = f"#/definitions/{part}"
    jsonschema.validate(message, whole)


def command(nats, verb, params=None):
    """One answer to docket.admin.<verb>, which is as its schema says."""
    check("admin", {} if params is None else params, f"{verb}_request")
    answer = answers(nats, f"docket.admin.{verb}", params=params, answers=1)[0]
    check("admin", answer, f"{verb}_answer")
    return answer


def stats(fleet, bound_s=10):
    """What every process tells next, from now on: {node: figures}. Each tells once a second, on a
    busy machine sometimes later; who has not told within the bound is not in it."""
    told = {}
    with Nats(fleet) as nats:
        nats.subscribe("docket.stats.>")
        for one in nats.messages(bound_s):
            told[one.subject.split(".")[3]] = json.loads(one.data)
            if sorted(told) == NODES:
                break
    return told


# -- services ------------------------------------------------------------------------------------


def check_schema(verb, answer):
    path = os.path.join(PROTOCOL, f"{verb.lower()}.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            jsonschema.validate(answer, json.load(stream))


def check_answer(verb, answer):
    assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
    assert answer["name"] in ROLES and answer["id"]
    assert re.match(r"^\d+\.\d+\.\d+", answer["version"])
    assert all(isinstance(value, str) for value in answer["metadata"].values())
    check_schema(verb, answer)


@pytest.mark.parametrize("verb", ["PING", "INFO", "STATS"])
def test_ops_services_answer(stage, nats, verb):
    def all_four():
        got = answers(nats, f"$SRV.{verb}", bound_s=0.5)
        return got if len(got) == 4 else None

    everybody = wait_until(all_four, 10)
    names = Counter(one["name"] for one in everybody)
    assert names == {"docket-broker": 1, "docket-worker": 2, "docket-directory": 1}
    assert len({one["id"] for one in everybody}) == 4
    for one in everybody:
        check_answer(verb, one)
        mine = answers(nats, f"$SRV.{verb}.{one['name']}.{one['id']}", answers=1)
        assert [other["id"] for other in mine] == [one["id"]]
    workers = answers(nats, f"$SRV.{verb}.docket-worker", answers=2)
    assert sorted(one["metadata"]["node"] for one in workers) == ["worker-0", "worker-1"]


def test_ops_services_describe_and_measure_their_endpoints(stage, nats):
    for broker in answers(nats, "$SRV.INFO.docket-broker", answers=1):
        assert [one["name"] for one in broker["endpoints"]] == ["tenants", "tenant", "table"]
    info = answers(nats, "$SRV.INFO.docket-worker", answers=1)[0]
    subjects = {one["name"]: one["subject"] for one in info["endpoints"]}
    assert info["description"]
    assert subjects["drain"] == "docket.admin.drain"
    node = info["metadata"]["node"]

    def figures(verb):
        told = answers(nats, f"$SRV.STATS.docket-worker.{info['id']}", answers=1)[0]
        assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", told["started"])
        return {one["name"]: one for one in told["endpoints"]}[verb]

    before = figures("resume")
    assert command(nats, "resume", {"node": node})["node"] == node
    after = figures("resume")
    assert after["num_requests"] == before["num_requests"] + 1
    assert after["num_errors"] == before["num_errors"]
    assert after["processing_time"] > before["processing_time"]
    assert after["average_processing_time"] > 0 and after["last_error"] == ""


def test_ops_the_leader_answers_wrong_requests(stage, nats):
    rows = [
        (b"rubbish", "400"),
        (b"[1]", "400"),
        (None, "400"),
        ({"node": 7}, "400"),
        ({"node": "no\r\nbody\u00e9"}, "404"),
        ({"node": "broker-0"}, "404"),
    ]
    for params, code in rows:
        got = nats.ask("docket.admin.pause", params=params, answers=1, more_s=0.3)
        assert [one.headers["Nats-Service-Error-Code"] for one in got] == [code], params
        assert got[0].headers["Nats-Service-Error"] == json.loads(got[0].data)["error"]
        check("admin", json.loads(got[0].data), "error")
    told = answers(nats, "$SRV.STATS.docket-directory", answers=1)[0]
    pause = {one["name"]: one for one in told["endpoints"]}["pause"]
    assert pause["num_errors"] >= len(rows)
    assert pause["last_error"].startswith("404:no worker")


# -- statistics ----------------------------------------------------------------------------------


def test_ops_statistics_move_under_load(stage, nats, load):
    nats.subscribe("docket.stats.>")
    first, last, seconds, answered = {}, {}, Counter(), 0
    begun = time.monotonic()
    for one in nats.messages(15):
        node = one.subject.split(".")[3]
        last[node] = json.loads(one.data)
        if node not in first:
            first[node] = last[node]
        elif node == "broker-0":
            answered += last[node]["metrics"]["docket_request_duration_seconds"]["count"]
        seconds[node] += 1
        if sorted(last) == NODES and min(seconds.values()) >= 4:
            break
    elapsed_s = time.monotonic() - begun
    load.stop()
    assert sorted(last) == NODES and min(seconds.values()) >= 4
    for one in last.values():
        check(f"stats-{one['role']}", one)
    assert max(seconds.values()) <= elapsed_s + 2  # once a second; the first may have been late
    broker, metrics = last["broker-0"], last["broker-0"]["metrics"]
    assert broker["role"] == "broker" and broker["table"]["version"] > 0
    created = metrics["docket_requests_total"]["create_ticket"]
    before = first["broker-0"]["metrics"]["docket_requests_total"]
    assert created["ok"] > before.get("create_ticket", {}).get("ok", 0)
    latency = metrics["docket_request_duration_seconds"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"] < 10
    assert 50 < answered < 10 * load.requests
    workers = [last["worker-0"], last["worker-1"]]
    assert [one["leader"] for one in workers].count(True) == 1
    assert all(one["metrics"]["docket_ctx_lag"] == 0 for one in last.values())
    for name in ("docket_commit_seconds", "docket_commit_group_size"):
        assert all(one["metrics"][name]["p99"] > 0 for one in workers if one["tenants"])
    assert sum(one["tenants"] for one in workers) == TENANTS
    assert sum(sum(one["metrics"]["docket_pg_connections"].values()) for one in workers) == TENANTS
    assert sum(one["metrics"]["docket_actors"]["serving"] for one in workers) == TENANTS
    assert sum(one["metrics"]["docket_breaches_total"] for one in workers) == 0
    assert all(one["metrics"]["docket_relay_lag_seconds"] < 5 for one in workers)


def test_ops_broker_and_workers_count_the_same(stage):
    """Once nothing is on its way, every request that a broker passed on is in a worker's count. Of
    what was asked before that may not hold: a broker counts what came too late as such."""
    from client import Client, new_id

    fleet, tenants = stage
    methods = ("create_ticket", "cancel_ticket", "login", "create_account")

    def counts():
        """By role and method; False if not all have told within the bound."""
        told = stats(fleet)
        return sorted(told) == NODES and [
            sum((Counter(one["metrics"]["docket_requests_total"].get(method, {}))
                 for one in told.values() if one["role"] == role), Counter())
            for role in ("broker", "worker") for method in methods
        ]

    looks = [counts()]

    def settled():
        looks.append(counts())
        return looks[-1] and looks[-2] == looks[-1]

    wait_until(settled, 20, 0)
    before, patience = looks[-1], {"budget_ms": 30000}
    with Client(fleet.internal, keys=fleet.keys) as internal:
        made = internal.call(
            "create_account", request_id=new_id(), name="Counted", password="a long password",
            email=f"{new_id().hex()}@ops.example", **patience)
        for _ in range(3):
            ticket = internal.call("create_ticket", client_id=made["client_id"],
                                   request_id=new_id(), ticket_type="bronze", **patience)
        internal.call("cancel_ticket", ticket_id=ticket["ticket_id"], **patience)
        internal.call("login", client_id=made["client_id"], password="a long password", **patience)

    def same():
        grown = [now - then for now, then in zip(counts() or [], before)]
        half = len(methods)
        print(grown)  # shown if it fails
        return (grown and grown[:half] == grown[half:] and
                [one["ok"] for one in grown[:half]] == [3, 1, 1, 1])

    wait_until(same, 20, 0)


def test_ops_holds_are_counted(stage):
    from client import Client

    fleet, tenants = stage

    def holds():
        return [one["metrics"]["docket_holds"] for one in stats(fleet).values() if "share" in one]

    before = holds()
    with Client(fleet.internal, keys=fleet.keys) as internal:
        for _ in range(3):
            held = internal.call("validate_eta", client_id=tenants[0].client, ticket_type="bronze")
            assert held["status"] == "ok" or held["slot_id"]
    after = holds()
    assert len(before) == len(after) == 2 and sum(after) == sum(before) + 3


def test_ops_a_lost_owner_is_counted(stage):
    fleet, tenants = stage

    def lost():
        told = [one["metrics"] for one in stats(fleet).values() if one["role"] == "worker"]
        return sum(one["docket_owner_lost_total"] for one in told), len(told)

    before, count = lost()
    assert count == 2
    ended = fleet.sql(
        "select pg_terminate_backend (pid) from pg_stat_activity a join tenants t"
        " on t.database = a.datname where t.client_id = %s and application_name like 'docket/%%'",
        (tenants[0].client,),
    )
    assert ended == [(True,)]
    wait_until(lambda: lost() == (before + 1, 2), 20, 0)


# -- refusals ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(stage):
    """A tenant of one resolver, for whom 480 minutes are taken: it refuses everything."""
    producer = Producer(stage[0].public)
    one = Tenant(producer, resolvers=1)
    end = time.monotonic() + 30
    while not ask_many(producer, one, 64):
        assert time.monotonic() < end
    producer.close()
    return one


def ask_many(producer, tenant, count):
    """Asks for so many bronze tickets at once; the refusals."""
    answered = []
    for _ in range(count):
        params = {"client_id": tenant.client, "token": tenant.token, "ticket_type": "bronze"}
        params["request_id"] = uuid.uuid4().bytes
        producer.submit("create_ticket", params, lambda *answer: answered.append(answer))
    end = time.monotonic() + 20
    while len(answered) < count:
        assert time.monotonic() < end
        producer.poll(100)
    assert all(error is None for error, _ in answered)
    return [result for _, result in answered if result["status"] == "refused"]


def test_ops_refusals_are_told(stage, nats, full):
    producer = Producer(stage[0].public)
    nats.subscribe("docket.refused.*")
    refused = []
    begun = time.monotonic()
    while time.monotonic() - begun < 3 or len(refused) <= 200:
        refused += ask_many(producer, full, 16)
        assert time.monotonic() - begun < 30
    seconds = time.monotonic() - begun  # all were refused in it, so all were told of in it
    told = list(nats.messages(0.5))
    producer.close()
    assert 10 <= len(told) <= 10 * (int(seconds) + 1)  # ten in any second
    for message in told:
        one = json.loads(message.data)
        check("refused", one)
        assert message.subject == f"docket.refused.{full.client}"
        assert one["client_id"] == full.client
        assert one["ticket_type"] == "bronze"
        assert one["reason"] in {answer["reason"] for answer in refused}
        assert one["earliest_ms"] is None or one["earliest_ms"] > 1_600_000_000_000
    figures = [one["metrics"] for one in stats(stage[0]).values() if one["role"] == "worker"]
    assert len(figures) == 2
    assert sum(one["docket_refused_total"] for one in figures) >= len(refused)
    assert sum(one["docket_refused_told_total"] for one in figures) >= len(told)
    print(f"{len(refused)} refusals, {len(told)} told in {seconds:.1f} s")


# -- commands ------------------------------------------------------------------------------------


def tenants_of(fleet):
    """{node: (share, tenants)}; ("", 0) of one that tells nothing, because it starts again."""
    told = stats(fleet, 3)
    return {node: (told[node]["share"], told[node]["tenants"]) if node in told else ("", 0)
            for node in NODES[1:]}


def all_active(fleet):
    """The same, once all tenants of the load are active and none comes or goes any more."""
    before, now = tenants_of(fleet), tenants_of(fleet)
    return now if before == now and sum(count for _, count in now.values()) >= TENANTS else None


def test_ops_pause_and_resume(stage, nats, load):
    fleet, _ = stage
    had = wait_until(lambda: all_active(fleet), 20, 0)["worker-0"][1]
    watcher = Nats(fleet).subscribe("docket.stats.worker.*")
    told = command(nats, "pause", {"node": "worker-0"})
    assert told["node"] == "worker-0" and told["share"] == "paused"
    wait_until(lambda: tenants_of(fleet)["worker-0"] == ("paused", 0), 20, 0)
    wait_until(lambda: tenants_of(fleet)["worker-1"][1] >= TENANTS, 20, 0)
    assert command(nats, "resume", {"node": "worker-0"})["share"] == "serving"
    wait_until(lambda: tenants_of(fleet)["worker-0"][1] > 0, 20, 0)
    load.stop()
    assert not load.failed and load.requests > 100
    seen = [json.loads(one.data) for one in watcher.messages(0.2)]
    watcher.close()
    handed = [one["metrics"]["docket_handoff_seconds"] for one in seen if one["node"] == "worker-0"]
    assert sum(one["count"] for one in handed) == had
    assert 0 < max(one["max"] for one in handed) < 5
    rows = fleet.sql("select actor, action, detail->>'node' from audit order by seq desc limit 2")
    assert rows == [("operator", "resume", "worker-0"), ("operator", "pause", "worker-0")]


def test_ops_drain_under_load(stage, nats, load):
    fleet, _ = stage
    pid = fleet.pids()["worker-1"]
    time.sleep(0.5)
    assert command(nats, "drain", {"node": "worker-1"})["share"] == "draining"
    fleet.restarted("worker-1", pid)  # docket up restarts whatever ends
    wait_until(lambda: tenants_of(fleet)["worker-1"][1] > 0, 20, 0)
    load.stop()
    assert not load.failed and load.requests > 100
    rows = fleet.sql("select action from audit where actor = 'operator' order by seq desc limit 1")
    assert rows == [("drain",)]
    assert "left:" in fleet.logs()["worker-1"]
    print(f"{load.requests} requests, 0 failed, slowest {load.slowest_s * 1000:.0f} ms")


def test_ops_tenants_are_listed_in_pages(stage, nats):
    fleet, tenants = stage

    def pages(limit):
        seen, params = [], {"limit": limit}
        while True:
            page = command(nats, "tenants", params)
            assert len(page["tenants"]) <= limit
            seen += [one["client_id"] for one in page["tenants"]]
            if page["cursor"] is None:
                assert page["count"] == len(seen)
                return seen
            params["cursor"] = page["cursor"]

    rows = fleet.sql("select client_id from tenants where state = 'active'")
    known = sorted(row[0] for row in rows)
    have = wait_until(lambda: pages(3) == known, 5)
    assert have and {one.client for one in tenants} <= set(known)
    assert pages(1000) == known
    for params in (b"rubbish", {"limit": 0}, {"limit": 1001}, {"limit": "3"}, {"cursor": 1}):
        got = nats.ask("docket.admin.tenants", params=params, answers=1)
        assert got[0].headers["Nats-Service-Error-Code"] == "400"


def test_ops_a_tenant_and_its_owner(stage, nats):
    fleet, tenants = stage
    client = tenants[0].client
    one = command(nats, "tenant", {"client_id": client})
    assert one["client_id"] == client and one["resolvers"] == 4 and not one["suspended"]
    assert one["classes"]["gold"] == {"level_minutes": 120, "limit_permille": 1000}
    told = fleet.sql("select database from tenants where client_id = %s", (client,))
    assert one["database"] == told[0][0]
    info = answers(nats, "$SRV.INFO.docket-worker", answers=2)
    assert one["owner"] in {worker["metadata"]["incarnation"] for worker in info}
    for params, code in (({}, "400"), ({"client_id": "cl_no"}, "400")):
        got = nats.ask("docket.admin.tenant", params=params, answers=1)
        assert got[0].headers["Nats-Service-Error-Code"] == code


def test_ops_the_table(stage, nats):
    info = answers(nats, "$SRV.INFO.docket-worker", answers=2)
    alive = {worker["metadata"]["incarnation"] for worker in info}

    def settled():
        table = command(nats, "table")
        shares = {one["incarnation"]: one["vshards"] for one in table["members"]}
        assert sum(shares.values()) == 4096
        return shares.keys() == alive and min(shares.values()) >= 2000

    wait_until(settled, 20)


# -- NATS is away --------------------------------------------------------------------------------


def test_ops_without_nats_nothing_waits(stage, full):
    """Refusals are answered as ever, and those that nobody could be told of are counted."""
    fleet, _ = stage

    def counted():
        try:
            told = [one for one in stats(fleet).values() if one["role"] == "worker"]
        except (OSError, AssertionError):
            return None  # NATS is not there yet
        dropped = sum(one["metrics"]["docket_refused_dropped_total"] for one in told)
        return dropped + 1 if len(told) == 2 else None  # 0 would not end the waiting

    before, slowest_s = wait_until(counted, 20), 0
    conf = os.path.join(fleet.data_folder, "nats.conf")
    producer = Producer(fleet.public)
    # The minutes that came since it was full have ended a ticket each.
    wait_until(lambda: len(ask_many(producer, full, 16)) == 16)
    os.rename(conf, conf + ".away")
    pid = fleet.kill("nats-0", signal.SIGSTOP)
    begun = time.monotonic()
    while time.monotonic() - begun < 2.5:
        if time.monotonic() - begun > 1:
            fleet.signal_pid(pid, signal.SIGKILL)
        asked = time.monotonic()
        assert len(ask_many(producer, full, 16)) >= 15  # a minute may come and end one ticket
        slowest_s = max(slowest_s, time.monotonic() - asked)
    producer.close()
    assert slowest_s < 1
    os.rename(conf + ".away", conf)
    fleet.restarted("nats-0", pid)
    wait_until(lambda: (counted() or 0) > before, 15, 0)


# -- docket top ----------------------------------------------------------------------------------


def top(fleet, *options):
    return subprocess.run(
        [DOCKET, "top", "--keys", fleet.keys, "--endpoint", fleet.nats, *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_ops_top(stage, load):
    fleet, _ = stage

    def once(*options):
        """It looks for little more than a second: who tells late is not in it."""
        done = top(fleet, "--once", *options)
        assert done.returncode == 0
        return done.stdout if all(node in done.stdout for node in NODES) else None

    told = json.loads(wait_until(lambda: once("--json"), 20, 0))
    assert sorted(one["node"] for one in told) == NODES
    shown = wait_until(once, 20, 0)
    print(shown)
    for word in ("leader", "p99"):
        assert word in shown
    rates = re.findall(r"^broker-0\s+([\d.]+)", shown, re.MULTILINE)
    assert len(rates) == 1 and float(rates[0]) > 0
    assert top(fleet, "--help").returncode == 0
    assert top(fleet, "--rubbish").returncode == 2
