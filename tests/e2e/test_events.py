# SPDX-License-Identifier: Apache-2.0
"""Events: every committed transition arrives, each in the order of its tenant, whatever NATS does.
What was committed is read from the journals themselves."""

import json
import os
import shutil
import signal
import subprocess
import time

import msgpack
import pytest

from fleet import DOCKET, wait_until
from producer import Load, Producer, Tenant

TYPES = ["created", "rescheduled", "dispatched", "resolved", "cancelled", "breached", "at_risk"]
TENANTS = 8
ARRIVE_S = 20
OUTAGE_S = int(os.environ.get("DOCKET_OUTAGE_S", "15"))  # the goal's ten minutes: 600


def environment(fleet):
    return {**os.environ, "DOCKET_NATS": fleet.nats, "DOCKET_KEYS": fleet.keys}


def tail(fleet, *options):
    """What the stream has now."""
    done = subprocess.run(
        [DOCKET, "events", "tail", "--json", "--once", *options],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(fleet),
        check=False,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def committed(fleet, tenant):
    """The ids of all events in a tenant's journal, in order."""
    if not tenant.database:
        rows = fleet.sql("select database from tenants where client_id = %s", (tenant.client,))
        tenant.database = rows[0][0]
    ids = []
    query = "select seq, events from journal order by seq"
    for seq, events in fleet.sql(query, database=tenant.database):
        counts = {}
        for event in msgpack.unpackb(bytes(events)):
            name = TYPES[event[0]]
            ids.append(f"{tenant.client}:{seq}:{name}:{counts.get(name, 0)}")
            counts[name] = counts.get(name, 0) + 1
    return ids


def check_complete(fleet, tenants, events):
    """No event that was not committed, each once, in order, and what clients were told is there."""
    by_client = {tenant.client: [] for tenant in tenants}
    for event in events:
        by_client[event["source"].rpartition("/")[2]].append(event)
    for tenant in tenants:
        mine = by_client[tenant.client]
        ids = [event["id"] for event in mine]
        assert len(ids) == len(set(ids))
        assert set(ids) <= set(committed(fleet, tenant))
        rows = [int(one.split(":")[1]) for one in ids]
        assert rows == sorted(rows)
        subjects = {name: set() for name in TYPES}
        for event in mine:
            subjects[event["type"].rpartition(".")[2]].add(event["subject"])
        assert tenant.created <= subjects["created"]
        assert tenant.cancelled <= subjects["cancelled"]


def arrives(fleet, tenants, bound_s=ARRIVE_S):
    """Waits until the stream has all that is in the journals now; returns (events, seconds)."""
    begun = time.monotonic()
    wanted = {one for tenant in tenants for one in committed(fleet, tenant)}
    clients = {tenant.client for tenant in tenants}

    def everything():
        events = tail(fleet, "--from-start")
        mine = [event for event in events if event["source"].rpartition("/")[2] in clients]
        return mine if wanted <= {event["id"] for event in mine} else None

    return wait_until(everything, bound_s, 0.2), time.monotonic() - begun


@pytest.fixture(scope="module")
def stage(tmp_path_factory, session_folder):
    """A fleet of this module's own, with tenants and one follower from the start."""
    from fleet import Fleet

    with Fleet(session_folder, data=os.path.join(session_folder, "events")) as fleet:
        producer = Producer(fleet.public)
        tenants = [Tenant(producer) for _ in range(TENANTS)]
        producer.close()
        yield fleet, tenants


def nats_away(fleet):
    """Ends NATS and sees to it that it cannot come back before nats_back."""
    conf = os.path.join(fleet.data_folder, "nats.conf")
    os.rename(conf, conf + ".away")
    return fleet.kill("nats-0")


def nats_back(fleet, old_pid):
    conf = os.path.join(fleet.data_folder, "nats.conf")
    os.rename(conf + ".away", conf)
    fleet.restarted("nats-0", old_pid)


def test_events_every_transition_arrives(stage):
    fleet, tenants = stage
    load = Load(fleet.public, tenants, pause_s=0.0005)
    load.start()
    time.sleep(3)
    load.stop()
    events, seconds = arrives(fleet, tenants)
    check_complete(fleet, tenants, events)
    assert not load.failed
    print(f"{load.requests} requests, {len(events)} events, all there after {seconds:.1f} s")


def test_events_are_cloudevents(stage):
    fleet, tenants = stage
    events = tail(fleet, "--from-start", "--client", tenants[0].client, "--type", "created")
    assert events
    for event in events:
        assert event["specversion"] == "1.0" and event["type"] == "com.docket.ticket.created"
        assert event["subject"].startswith("tk_") and event["time"].endswith("Z")
        assert event["data"]["ticket_type"] == "bronze"
        assert event["data"]["deadline_ms"] > event["data"]["slot_start_ms"] > 0
        assert event["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


def test_events_nats_hangs_for_a_while(stage):
    fleet, tenants = stage
    load = Load(fleet.public, tenants)
    load.start()
    pid = fleet.kill("nats-0", signal.SIGSTOP)
    time.sleep(5)
    fleet.signal_pid(pid, signal.SIGCONT)
    load.stop()
    events, seconds = arrives(fleet, tenants)
    check_complete(fleet, tenants, events)
    assert not load.failed
    print(f"{load.requests} requests, {len(events)} events, all there after {seconds:.1f} s")


def test_events_nats_gone_under_load(stage):
    fleet, tenants = stage
    load = Load(fleet.public, tenants, pause_s=OUTAGE_S / 7500)
    load.start()
    pid = nats_away(fleet)
    time.sleep(OUTAGE_S)
    nats_back(fleet, pid)
    load.stop()
    events, seconds = arrives(fleet, tenants)
    check_complete(fleet, tenants, events)
    assert not load.failed
    assert load.slowest_s < 2
    print(
        f"{load.requests} requests, 0 failed, slowest {load.slowest_s * 1000:.0f} ms, "
        f"{len(events)} events, all there {seconds:.1f} s after NATS"
    )


def test_events_worker_killed_under_load(stage):
    fleet, tenants = stage
    load = Load(fleet.public, tenants)
    load.start()
    time.sleep(1)
    fleet.restarted("worker-0", fleet.kill("worker-0"))
    time.sleep(2)
    load.stop()
    # Whatever the killed owner had not published waits for the tenant's next activation.
    producer = Producer(fleet.public)
    for tenant in tenants:
        producer.patient("availability", client_id=tenant.client, token=tenant.token)
    producer.close()
    events, _ = arrives(fleet, tenants)
    check_complete(fleet, tenants, events)


def test_events_store_wiped(stage, folder):
    fleet, tenants = stage
    before = len(tail(fleet, "--from-start"))
    seen = os.path.join(folder, "seen")
    with open(seen, "w", encoding="utf-8") as stream:
        follower = subprocess.Popen(
            [DOCKET, "events", "tail", "--json", "--from-start"],
            stdout=stream,
            env=environment(fleet),
        )
    pid = nats_away(fleet)
    wait_until(lambda: "nats-0" not in fleet.pids(), 5)
    shutil.rmtree(os.path.join(fleet.data_folder, "nats", "jetstream"))
    nats_back(fleet, pid)
    events, seconds = arrives(fleet, tenants)
    check_complete(fleet, tenants, events)
    assert len(events) >= before > 0
    wanted = {event["id"] for event in events}

    def followed():
        with open(seen, encoding="utf-8") as lines:
            return [json.loads(line)["id"] for line in lines if line.endswith("\n")]

    wait_until(lambda: wanted <= set(followed()), 10, 0.2)
    follower.terminate()
    follower.wait(10)
    assert len(followed()) == len(set(followed())), "it printed an event twice"
    print(f"{len(events)} events, all there again after {seconds:.1f} s")


def test_events_store_wiped_while_tenants_sleep(session_folder):
    """Nobody asks for them and nothing is due: they are woken because the stream is new."""
    from fleet import Fleet

    data = os.path.join(session_folder, "asleep")
    with Fleet(session_folder, data=data, env={"DOCKET_IDLE_MS": "500"}) as fleet:
        producer = Producer(fleet.public)
        tenants = [Tenant(producer) for _ in range(TENANTS)]
        for tenant in tenants:
            made = [
                producer.call("create_ticket", client_id=tenant.client, token=tenant.token,
                              request_id=os.urandom(16), ticket_type="bronze")["ticket_id"]
                for _ in range(3)
            ]
            tenant.created.update(made)
            for ticket in made:
                producer.call("cancel_ticket", ticket_id=ticket, token=tenant.token)
            tenant.cancelled.update(made)
        producer.close()
        arrives(fleet, tenants)
        sleeping = "select count (*) from pg_stat_activity where datname like 't\\_%'"
        wait_until(lambda: fleet.sql(sleeping)[0][0] == 0, 30, 0.1)
        pid = nats_away(fleet)
        wait_until(lambda: "nats-0" not in fleet.pids(), 5)
        shutil.rmtree(os.path.join(fleet.data_folder, "nats", "jetstream"))
        nats_back(fleet, pid)
        events, seconds = arrives(fleet, tenants)
        check_complete(fleet, tenants, events)
        print(f"{TENANTS} tenants asleep, {len(events)} events there again after {seconds:.1f} s")


def test_events_top_tells_of_every_worker(stage):
    fleet, _ = stage

    def both():
        """It looks for little more than a second: who tells late is not in it."""
        done = subprocess.run(
            [DOCKET, "top", "--once", "--json"],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment(fleet),
            check=True,
        )
        told = {one["node"]: one for one in json.loads(done.stdout) if one["role"] == "worker"}
        return told if sorted(told) == ["worker-0", "worker-1"] else None

    told = wait_until(both, 20, 0)
    assert sum(one["commits"] for one in told.values()) > 0
    assert all(one["relay"]["lag_rows"] == 0 for one in told.values())
    assert sum(one["leader"] for one in told.values()) == 1
