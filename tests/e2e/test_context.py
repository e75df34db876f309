# SPDX-License-Identifier: Apache-2.0
"""Tenant context: one writer, a replica in every broker and worker (rules 8 to 10).

What a client sees never depends on NATS, and on the control database only where something new is
asked of it; and whatever was lost, every replica is right again by itself.

DOCKET_CONTEXT_ACCOUNTS=1000 makes the first test as long as one likes.
"""

import base64
import hashlib
import json
import os
import shutil
import socket
import struct
import time
from urllib.parse import urlsplit

import pytest
from client import PASSWORD, Client, Tenant, new_id, own_source, refused
from conftest import discard
from fleet import Fleet, wait_until
from nats_socket import Nats
from producer import Load

ACCOUNTS = int(os.environ.get("DOCKET_CONTEXT_ACCOUNTS", "60"))
IDLE_MS = 2000
OUTAGE_S = 4
PROCESSES = {"broker-0", "broker-1", "worker-0", "worker-1"}
RECORD, GONE, TABLE, HEAD = 1, 2, 3, 4


@pytest.fixture(scope="module")
def stage(session_folder):
    """A fleet of this module's own: what is done to it is done to all of it."""
    fleet = Fleet(
        session_folder, data=os.path.join(session_folder, "context"), brokers=2,
        env={"DOCKET_IDLE_MS": str(IDLE_MS)})
    with fleet:
        yield fleet
        discard(fleet)


def endpoints(fleet, kind):
    return fleet.ready[kind].split(",")


@pytest.fixture(scope="module")
def inside(stage):
    """A service inside, at each broker."""
    made = [Client(one, keys=stage.keys) for one in endpoints(stage, "internal")]
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def tenants(stage):
    made = [Tenant(stage, resolvers=8) for _ in range(3)]
    yield made
    for one in made:
        one.close()


def load_on(stage, tenants):
    """Load through the first broker; Load names tenants by their id."""

    class Named:
        def __init__(self, tenant):
            self.client, self.token = tenant.client_id, tenant.token
            self.created, self.cancelled = set(), set()

    load = Load(endpoints(stage, "public")[0], [Named(one) for one in tenants], pause_s=0.005)
    load.start()
    return load


# -- what replicas say of themselves --------------------------------------------------------------


def contexts(fleet, bound_s=10.0):
    """{node: ctx} of the next statistics of all four: each tells once a second, or a little later
    on a busy machine. One that runs no more is not in it."""
    found = {}
    with Nats(fleet) as nats:
        nats.subscribe("docket.stats.*.*")
        for message in nats.messages(bound_s):
            stats = json.loads(message.data)
            found[stats["node"]] = {**stats["ctx"], "leader": stats.get("leader", False)}
            if set(found) == PROCESSES:
                break
    return found


def truth(fleet):
    """(epoch, seq, tenants) as the control database has them."""
    return fleet.sql(
        "select (select epoch from leader), (select seq from feed_head),"
        " (select count (*) from tenants where state = 'active')")[0]


def all_agree(fleet, bound_s=20):
    """Waits until every replica is where the control database is; returns what they say."""

    def agreed():
        epoch, seq, count = truth(fleet)
        said = contexts(fleet)
        right = set(said) == PROCESSES and all(
            (one["state"], one["epoch"], one["seq"], one["records"])
            == ("CURRENT", epoch, seq, count)
            for one in said.values())
        return right and len({one["hash"] for one in said.values()}) == 1 and said

    return wait_until(agreed, bound_s, 0.1)


def stream(nats):
    """(messages, subjects) of the stream; None: there is none."""
    answers = nats.ask("$JS.API.STREAM.INFO.DOCKET_CTX", {"subjects_filter": "docket.ctx.>"}, 2, 1)
    info = json.loads(answers[0].data) if answers else {}
    return info["state"] if "state" in info else None


def stream_complete(fleet):
    """One message for each tenant, for the table and for the head, all of this epoch or older."""
    _, _, count = truth(fleet)
    with Nats(fleet) as nats:
        state = stream(nats)
        subjects = set((state or {}).get("subjects", {}))
    clients = {row[0] for row in fleet.sql("select client_id from tenants where state = 'active'")}
    wanted = {f"docket.ctx.{one}" for one in clients | {"table", "head"}}
    return len(clients) == count and wanted <= subjects


def head(fleet, bound_s=10):
    """The next head on NATS: (epoch, seq)."""
    with Nats(fleet) as nats:
        nats.subscribe("docket.ctx.head")
        message = nats.next(bound_s)
    assert message, "no head"
    form, kind, _, epoch, _, seq = struct.unpack_from("<BBHQQQ", message.data)
    assert (form, kind) == (1, HEAD)
    return epoch, seq


# -- through any broker ---------------------------------------------------------------------------


def test_context_account_logs_in_through_the_other_broker_at_once(stage):
    slowest_s, wrong = 0.0, []
    first, second = endpoints(stage, "public")
    for number in range(ACCOUNTS):
        if number % 50 == 0:  # quotas are per source
            one, other = Client(first, source=own_source()), Client(second, source=own_source())
        made = one.patient(
            "create_account", request_id=new_id(), name="Quick", password=PASSWORD,
            email=f"{new_id().hex()}@quick.example", budget_ms=30000)
        begun = time.monotonic()
        error, _ = other.ask("login", client_id=made["client_id"], password=PASSWORD)
        slowest_s = max(slowest_s, time.monotonic() - begun)
        wrong += [error] if error else []
    print(f"{ACCOUNTS} accounts, slowest login {slowest_s * 1000:.0f} ms, {len(wrong)} refused")
    assert not wrong
    all_agree(stage)


def test_context_suspension_is_seen_through_the_other_broker_at_once(stage, tenants, inside):
    tenant = tenants[0]
    with Client(endpoints(stage, "public")[1], source=own_source()) as other:
        for _ in range(10):
            inside[0].call("set_tenant", client_id=tenant.client_id, suspended=True)
            with refused("suspended"):
                other.call("create_ticket", **tenant.with_defaults("create_ticket", {}))
            assert inside[1].call("get_tenant", client_id=tenant.client_id)["suspended"]
            inside[0].call("set_tenant", client_id=tenant.client_id, suspended=False)
            other.call("create_ticket", **tenant.with_defaults("create_ticket", {}))
    all_agree(stage)


# -- NATS -----------------------------------------------------------------------------------------


def nats_away(fleet):
    """Ends NATS and sees to it that it cannot come back before nats_back."""
    conf = os.path.join(fleet.data_folder, "nats.conf")
    os.rename(conf, conf + ".away")
    pid = fleet.kill("nats-0")
    wait_until(lambda: "nats-0" not in fleet.pids(), 10)
    return pid


def nats_back(fleet, old_pid):
    conf = os.path.join(fleet.data_folder, "nats.conf")
    os.rename(conf + ".away", conf)
    fleet.restarted("nats-0", old_pid)
    where = urlsplit(fleet.nats)

    def serves():
        with socket.socket() as probe:
            return probe.connect_ex((where.hostname, where.port)) == 0

    wait_until(serves, 20)


def test_context_nats_gone_under_load(stage, tenants):
    before = all_agree(stage)
    load = load_on(stage, tenants)
    pid = nats_away(stage)
    new = Tenant(stage)  # an account as ever
    with Client(endpoints(stage, "public")[1], source=own_source()) as other:
        other.call("login", client_id=new.client_id, password=PASSWORD)
    broker = stage.kill("broker-1")  # and a broker that starts without NATS
    stage.restarted("broker-1", broker)
    with Client(endpoints(stage, "public")[1], source=own_source()) as other:
        other.patient("create_ticket", **new.with_defaults("create_ticket", {}))
    time.sleep(OUTAGE_S)
    nats_back(stage, pid)
    load.stop()
    assert not load.failed
    after = all_agree(stage)
    wait_until(lambda: stream_complete(stage), 20, 0.2)
    assert after["broker-0"]["doubts"]["silence"] > before["broker-0"]["doubts"]["silence"]
    assert head(stage)[0] == truth(stage)[0]
    print(f"{load.requests} requests, 0 failed, slowest {load.slowest_s * 1000:.0f} ms")


def test_context_store_wiped_is_complete_again(stage):
    pid = nats_away(stage)
    shutil.rmtree(os.path.join(stage.data_folder, "nats", "jetstream"))
    nats_back(stage, pid)
    wait_until(lambda: stream_complete(stage), 20, 0.2)
    all_agree(stage)


def test_context_stream_purged_or_deleted_is_complete_again(stage):
    for verb in ("PURGE", "DELETE"):
        with Nats(stage, role="worker") as nats:
            answer = nats.ask(f"$JS.API.STREAM.{verb}.DOCKET_CTX", {}, 5, 1)
            assert json.loads(answer[0].data)["success"]
        wait_until(lambda: stream_complete(stage), 20, 0.2)
    all_agree(stage)


def test_context_lost_message_is_pulled(stage):
    """A head that is ahead, and one with another hash: all doubt, pull, and are right again."""
    before = all_agree(stage)
    epoch, seq, count = truth(stage)
    with Nats(stage, role="worker") as nats:
        lost = struct.pack("<BBHQQQQI", 1, HEAD, 0, epoch, seq + 5, seq + 5, 0, count)
        nats.publish("docket.ctx.head", lost)
        gapped = wait_until(lambda: moved(stage, before, "gap"), 10, 0.1)
        wrong = struct.pack("<BBHQQQQI", 1, HEAD, 0, epoch, seq, seq, 42, count)
        nats.publish("docket.ctx.head", wrong)
        nats.send(b"PING\r\n")
        wait_until(lambda: moved(stage, gapped, "hash"), 10, 0.1)
    after = all_agree(stage)
    for name, one in after.items():
        assert one["resyncs"] > before[name]["resyncs"], f"{name} has not pulled"


def moved(fleet, before, reason):
    now = contexts(fleet)
    doubted = set(now) == PROCESSES and all(
        one["doubts"][reason] > before[name]["doubts"][reason] for name, one in now.items())
    return doubted and now


# -- the leader -----------------------------------------------------------------------------------


def test_context_leader_killed_goes_on_in_a_new_epoch(stage, tenants):
    epoch, _ = head(stage)
    leader = next(name for name, one in all_agree(stage).items() if one["leader"])
    pid = stage.kill(leader)
    begun = time.monotonic()
    for _ in range(20):
        for tenant in tenants:
            tenant.client.patient("create_ticket", **tenant.with_defaults("create_ticket", {}))
    wait_until(lambda: head(stage)[0] > epoch, 15, 0.05)
    seconds = time.monotonic() - begun
    stage.restarted(leader, pid)
    all_agree(stage)
    wait_until(lambda: stream_complete(stage), 20, 0.2)
    print(f"a head of the new epoch {seconds:.1f} s after the leader was killed")


# -- the control database -------------------------------------------------------------------------


def control(fleet, there):
    fleet.sql(
        f"alter database docket_control allow_connections {'true' if there else 'false'}",
        database="postgres")
    if not there:
        fleet.sql(
            "select pg_terminate_backend (pid) from pg_stat_activity"
            " where datname = 'docket_control'", database="postgres")


def sessions(fleet, database):
    return fleet.sql(
        "select count (*) from pg_stat_activity where datname = %s"
        " and application_name like 'docket/worker-%%'", (database,), database="postgres")[0][0]


@pytest.fixture
def sleeper(stage):
    """A tenant that nobody has active, and for which nothing is due."""
    tenant = Tenant(stage)
    tenant.home = tenant.database
    wait_until(lambda: sessions(stage, tenant.home) == 0, 20, 0.1)
    yield tenant
    tenant.close()


def unknown_client(fleet):
    """The id of an account that was never made, with the tag of a real one."""
    with open(os.path.join(fleet.keys, "id.keys"), encoding="ascii") as keys:
        kid, key = keys.readline().split()
    raw = bytes([int(kid)]) + os.urandom(7)
    tag = hashlib.blake2b(b"cl_" + raw, key=bytes.fromhex(key), digest_size=16).digest()[:4]
    return "cl_" + base64.urlsafe_b64encode(raw + tag).decode()


def ticket():
    return {"request_id": new_id(), "ticket_type": "gold"}


def is_answered(client, method, **params):
    """Asks once; an owner in the middle of something may say `unavailable`, and is asked again."""
    return client.patient(method, bound_s=10, **params)


def test_context_control_database_gone(stage, tenants, inside, sleeper):
    awake = tenants[0]
    awake.create()
    all_agree(stage)
    wanted = inside[0].call("get_tenant", client_id=sleeper.client_id)
    listed = inside[0].call("list_tenants", limit=1000)["tenants"]
    nobody = unknown_client(stage)
    for method, params in (("get_tenant", {}), ("create_ticket", ticket())):
        with refused("not_found"):
            inside[0].call(method, client_id=nobody, **params)
    nobody = unknown_client(stage)  # one that nobody has asked for
    load = load_on(stage, [awake])
    control(stage, there=False)
    try:
        # What was asked at the very moment may have failed; from here on nothing does.
        made = is_answered(sleeper.client, "create_ticket",
                           **sleeper.with_defaults("create_ticket", {}))
        assert made["status"] == "created"
        for service in inside:
            assert is_answered(service, "get_tenant", client_id=sleeper.client_id) == wanted
            assert is_answered(service, "list_tenants", limit=1000)["tenants"] == listed
            for method, params in (("get_tenant", {}), ("create_ticket", ticket())):
                with refused("unavailable"):
                    service.call(method, client_id=nobody, **params)
        with Client(endpoints(stage, "public")[0], source=own_source()) as client:
            with refused("unavailable"):
                client.call(
                    "create_account", request_id=new_id(), name="Late", password=PASSWORD,
                    email=f"{new_id().hex()}@late.example", budget_ms=1500)
        broker = stage.kill("broker-1")  # it was entered before
        stage.restarted("broker-1", broker)
        with Client(endpoints(stage, "public")[1], source=own_source()) as client:
            is_answered(client, "create_ticket", **awake.with_defaults("create_ticket", {}))
    finally:
        control(stage, there=True)
    load.stop()
    assert not load.failed
    row = "select count (*) from wake where client_id = %s"
    wait_until(lambda: stage.sql(row, (sleeper.client_id,))[0][0] == 1, 20, 0.1)
    Tenant(stage).close()
    all_agree(stage)
    wait_until(lambda: stream_complete(stage), 20, 0.2)
    print(f"{load.requests} requests without the control database, 0 failed")
