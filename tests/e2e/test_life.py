# SPDX-License-Identifier: Apache-2.0
"""Life of a tenant: settings and suspension in the audit log, export, deletion with a receipt."""

import base64
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from client import (
    PASSWORD, Client, Tenant, WireError, calm, new_id, own_source, refused)
from conftest import discard
from fleet import DOCKET, Fleet, wait_until

PROMPT_S = 150  # a bound for a command; a deletion waits for a checkpoint


@pytest.fixture(scope="module")
def life(session_folder):
    """A fleet of the module's own: two brokers, two workers; some tests kill them."""
    with Fleet(session_folder, data=os.path.join(session_folder, "life"), brokers=2) as fleet:
        yield fleet
        discard(fleet)


@pytest.fixture
def inside(life):
    with Client(life.internal, keys=life.keys) as client:
        yield client


@pytest.fixture
def company(life):
    made = []

    def make(resolvers=None):
        made.append(Tenant(life, resolvers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def start(life, *words):
    return subprocess.Popen(
        [DOCKET, "tenant", *words, "--data", life.data_folder], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def run(life, *words, status=0):
    """(stdout, stderr) of a command, which must end with that status."""
    process = start(life, *words)
    out, err = process.communicate(timeout=PROMPT_S)
    assert process.returncode == status, (words, out, err)
    return out, err


def ask_inside(life, *words, status=0):
    """A verb that is a call to the internal endpoint."""
    done = subprocess.run(
        [DOCKET, "tenant", *words, "--keys", life.keys, "--endpoint", life.internal],
        capture_output=True, text=True, timeout=PROMPT_S)
    assert done.returncode == status, (words, done.stdout, done.stderr)
    return done.stdout


def audit(life, client_id):
    """[(action, actor, detail)] of a tenant, oldest first; the chain must be whole."""
    assert life.sql("select audit_broken ()") == [(None,)]
    return life.sql("select action, actor, detail from audit where client_id = %s order by seq",
                    (client_id,))


def actions(life, client_id):
    return [row[0] for row in audit(life, client_id)]


class Load:
    """Creates of a tenant, one after the other, in a thread; `acked` is what it was told."""

    def __init__(self, tenant, patient=False):
        self.tenant, self.patient = tenant, patient
        self.acked, self.failed, self.running = [], [], True
        self.client = Client(tenant.fleet.public, source=own_source())
        self.thread = threading.Thread(target=self.work)

    def work(self):
        while self.running:
            params = {"token": self.tenant.token, "client_id": self.tenant.client_id,
                      "request_id": new_id(), "ticket_type": "bronze", "subject": 'a "quoted"\n\\n'}
            try:
                call = self.client.patient if self.patient else self.client.call
                result = call("create_ticket", **params)
                self.acked += [result["ticket_id"]] if result["status"] == "created" else []
            except WireError as error:
                self.failed.append(str(error))
            time.sleep(0.002)

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: len(self.acked) > 20)
        return self

    def stop(self):
        self.running = False
        self.thread.join()

    def __exit__(self, *_):
        self.stop()
        self.client.close()


# -- settings and suspension -----------------------------------------------------------------------


def test_life_verbs_are_idempotent_and_audited(life, inside, company):
    one = company(2)
    for _ in range(2):
        assert ask_inside(life, "suspend", one.client_id) == "done\n"
        assert ask_inside(life, "set", one.client_id, "--resolvers", "3") == "done\n"
    for _ in range(2):
        inside.call("set_tenant", client_id=one.client_id, suspended=False, resolvers=3)
    with refused("not_found"):
        inside.call("set_tenant", client_id="cl_AAAAAAAAAAAAAAAA", suspended=True)
    inside.call("set_tenant", client_id=one.client_id, limits={"bronze": 500}, rebooking=False)
    one.call("change_password", password=PASSWORD, new_password="another password")
    rows = wait_until(lambda: len(found := audit(life, one.client_id)) >= 6 and found)
    assert [row[:2] for row in rows] == [
        ("create_account", "public"), ("set_tenant", "internal"), ("set_tenant", "internal"),
        ("set_tenant", "internal"), ("set_tenant", "internal"), ("change_password", "tenant")]
    assert rows[1][2]["suspended"] is True and rows[3][2]["suspended"] is False
    assert rows[2][2]["settings"]["resolvers"] == 3
    assert rows[4][2]["settings"]["limits"] == {"bronze": 500}
    assert "another" not in str(rows)
    assert inside.call("get_tenant", client_id=one.client_id)["limits"] == {"bronze": 500}


def test_life_refused_resize_names_the_promises(life, inside, company):
    one = company(2)
    inside.call("set_tenant", client_id=one.client_id, classes={"quick": 3})
    calm()
    made = [one.ask("create_ticket", ticket_type="quick")[1] for _ in range(6)]
    kept = [ticket["ticket_id"] for ticket in made if ticket["status"] == "created"]
    told = ask_inside(life, "set", one.client_id, "--resolvers", "1", status=1)
    assert "promises stand in the way" in told
    assert [line.strip() for line in told.splitlines()[1:]]
    assert {line.strip() for line in told.splitlines()[1:]} <= set(kept)
    help_text = ask_inside(life, "set", "--help")
    for part in ("1 to 4096", "2 to 1440", "0 to 1000"):
        assert part in help_text
    # What was refused is not audited. Settings are carried there in their order, a moment later.
    inside.call("set_tenant", client_id=one.client_id, rebooking=False)
    rows = wait_until(lambda: (rows := audit(life, one.client_id)) and
                      rows[-1][2].get("settings", {}).get("rebooking") is False and rows)
    assert len(rows) == 3


def test_life_change_is_audited_although_the_control_database_was_away(life, inside, company):
    """The owner commits, nobody can write the audit log, and the owner dies before it can."""
    one, other = company(), company()
    inside.call("set_tenant", client_id=other.client_id, resolvers=2)
    one.call("availability")
    life.sql("alter database docket_control allow_connections false", database="postgres")
    try:
        life.sql("select pg_terminate_backend (pid) from pg_stat_activity"
                 " where datname = 'docket_control'", database="postgres")
        assert inside.patient("set_tenant", client_id=other.client_id, resolvers=4)
        assert inside.patient("set_tenant", client_id=one.client_id, resolvers=7)
        killed = {name: life.kill(name) for name in ("worker-0", "worker-1")}
    finally:
        life.sql("alter database docket_control allow_connections true", database="postgres")
    for name, pid in killed.items():
        life.restarted(name, pid)
    for tenant, resolvers in ((one, 7), (other, 4)):
        rows = wait_until(lambda: (rows := audit(life, tenant.client_id)) and
                          rows[-1][2].get("settings", {}).get("resolvers") == resolvers and rows,
                          30, 0.1)
        assert rows[-1][0] == "set_tenant"
    assert inside.patient("get_tenant", client_id=one.client_id)["resolvers"] == 7


# -- export ----------------------------------------------------------------------------------------


def read_export(folder):
    """{name: rows} of a whole export, every hash checked."""
    with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as stream:
        manifest = json.load(stream)
    rows = {}
    for entry in manifest["files"]:
        with open(os.path.join(folder, entry["name"]), "rb") as stream:
            data = stream.read()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        assert len(data) == entry["bytes"]
        assert b"argon2" not in data
        kind = entry["name"].split(".")[0]
        lines = data.decode().splitlines() if entry["name"].endswith("jsonl") else [data]
        rows[kind] = [json.loads(line) for line in lines]
        assert len(rows[kind]) == entry["rows"]
    return manifest, rows


def test_life_export_under_load_has_every_acknowledged_ticket_once(life, inside, company, folder):
    one = company(32)
    inside.call("set_tenant", client_id=one.client_id, resolvers=64)
    out = os.path.join(folder, "out")
    first = one.create("gold", payload=bytes(range(256)), subject="first")
    with Load(one) as load:
        before = list(load.acked)
        run(life, "export", one.client_id, "--out", out)
        _, rows = read_export(out)
        during = [row["ticket_id"] for row in rows["tickets"]]
        assert len(during) == len(set(during)) and set(before) <= set(during)
        asked = time.monotonic()
        run(life, "export", one.client_id, "--out", out)
        assert time.monotonic() - asked < 10
    assert load.failed == []
    told = json.loads(run(life, "export", one.client_id, "--out", out, "--json")[0])
    manifest, rows = read_export(out)
    assert sorted(os.listdir(out)) == sorted(
        ["manifest.json", *(entry["name"] for entry in manifest["files"])])
    tickets = {row["ticket_id"]: row for row in rows["tickets"]}
    assert set(tickets) == {first["ticket_id"], *load.acked} and len(tickets) == told["tickets"]
    row = tickets[first["ticket_id"]]
    assert (row["subject"], row["deadline_ms"]) == ("first", first["deadline_ms"])
    assert row["payload_base64"].startswith("AAECAwQF") and row["created_at"].endswith("Z")
    assert tickets[load.acked[0]]["subject"] == 'a "quoted"\n\\n'
    events = [event for entry in rows["journal"] for event in entry["events"]]
    created = {event["subject"] for event in events if event["type"].endswith("ticket.created")}
    assert created == set(tickets)
    assert rows["account"][0]["email"] == one.email and "password" not in rows["account"][0]
    assert rows["settings"][0]["resolvers"] == 64
    assert [row["detail"]["resolvers"] for row in rows["changes"]] == [64]
    assert manifest["schema_version"] >= 1 and manifest["epoch"] >= 1
    assert actions(life, one.client_id).count("export_tenant") == 3
    assert audit(life, one.client_id)[-1][2]["manifest"] == told["manifest_sha256"]


def test_life_export_replaces_only_whole_and_refuses_foreign_folders(life, company, folder):
    one, two = company(64), company()
    out = os.path.join(folder, "out")
    one.create_many(3000, "bronze", payload=b"x" * 500)
    run(life, "export", one.client_id, "--out", out)
    stands = read_export(out)
    for wait_s in (0.02, 0.06, 0.12):
        process = start(life, "export", one.client_id, "--out", out)
        wait_until(lambda: [name for name in os.listdir(out) if name.endswith(".part")] or
                   process.poll() is not None, every_s=0.001)
        time.sleep(wait_s)  # somewhere in the middle
        process.kill()
        process.communicate()
        assert read_export(out)[1]["account"] == stands[1]["account"]
    _, err = run(life, "export", two.client_id, "--out", out, status=1)
    assert "another tenant" in err
    run(life, "export", one.client_id, "--out", out)
    assert not [name for name in os.listdir(out) if name.endswith(".part")]
    assert len(os.listdir(out)) == 6
    with open(os.path.join(folder, "mine.txt"), "w", encoding="ascii") as stream:
        stream.write("mine")
    _, err = run(life, "export", one.client_id, "--out", folder, status=1)
    assert "mine.txt" in err or "out" in err
    run(life, "export", "cl_AAAAAAAAAAAAAAAA", "--out", os.path.join(folder, "no"), status=1)
    run(life, "export", one.client_id, status=2)


# -- deletion --------------------------------------------------------------------------------------


def is_gone(life, database):
    return life.sql("select (select count (*) from pg_database where datname = %s)"
                    " + (select count (*) from pg_roles where rolname = %s)",
                    (database, database)) == [(0,)]


def check_unknown(life, tenant, ticket_id):
    """Through every broker and every method, at once."""
    for endpoint in life.ready["public"].split(","):
        with Client(endpoint, source=own_source()) as client:
            with refused("unauthenticated"):
                client.call("login", client_id=tenant.client_id, password=PASSWORD)
            for method, params in (
                ("create_ticket", {"client_id": tenant.client_id, "request_id": new_id(),
                                   "ticket_type": "gold"}),
                ("list_tickets", {"client_id": tenant.client_id}),
                ("availability", {"client_id": tenant.client_id}),
                ("logout", {"client_id": tenant.client_id}),
                ("change_password", {"client_id": tenant.client_id, "password": PASSWORD,
                                     "new_password": "a new password"}),
                ("get_ticket", {"ticket_id": ticket_id}),
                ("cancel_ticket", {"ticket_id": ticket_id}),
                ("resolve_ticket", {"ticket_id": ticket_id}),
            ):
                with refused("not_found"):
                    client.call(method, token=tenant.token, **params)
    for endpoint in life.ready["internal"].split(","):
        with Client(endpoint, keys=life.keys) as client:
            for method, params in (("get_tenant", {}), ("set_tenant", {"suspended": True}),
                                   ("set_tenant", {"resolvers": 2}),
                                   ("validate_eta", {"ticket_type": "gold"})):
                with refused("not_found"):
                    client.call(method, client_id=tenant.client_id, **params)
            assert tenant.client_id not in str(client.call("list_tenants", limit=1000))


def delete(tenant, receipt, *words):
    return ("delete", tenant.client_id, "--confirm", tenant.client_id, "--receipt", receipt, *words)


def test_life_delete(life, inside, company, folder):
    one, neighbour = company(), company(64)
    receipt, out = os.path.join(folder, "receipt.json"), os.path.join(folder, "out")
    database = one.database
    calm(20)  # it must not be dispatched meanwhile
    ticket_id = one.create("gold")["ticket_id"]
    run(life, "delete", one.client_id, "--confirm", "cl_another", "--receipt", receipt, status=2)
    told, _ = run(life, *delete(one, receipt), status=1)
    assert told.startswith("refused: 1 open tickets")
    assert one.ticket(ticket_id)["state"] == "open" and not os.path.exists(receipt)
    one.call("cancel_ticket", ticket_id=ticket_id)
    for words in (delete(one, os.path.join(folder, "no", "r.json")),
                  delete(one, receipt, "--export", life.data_folder)):
        run(life, *words, status=1)  # nowhere to write to: nothing is touched
    with Load(neighbour) as load:
        printed, _ = run(life, *delete(one, receipt, "--export", out))
        check_unknown(life, one, ticket_id)
    assert load.failed == []
    assert is_gone(life, database)
    assert f"{one.client_id} is deleted: ending" not in str(life.logs()), "its owner was not told"
    _, rows = read_export(out)
    assert [row["ticket_id"] for row in rows["tickets"]] == [ticket_id]
    said = json.loads(printed)
    with open(os.path.join(out, "manifest.json"), "rb") as stream:
        assert said["export_manifest_sha256"] == hashlib.sha256(stream.read()).hexdigest()
    assert said["rows"]["tickets"] == 1 and said["open_tickets"] == 0
    assert said["actor"].startswith("operator:")
    row = life.sql("select encode (hash, 'hex'), action from audit where seq = %s",
                   (said["audit"]["seq"],))
    assert row == [(said["audit"]["hash"], "delete_tenant")]
    assert actions(life, one.client_id) == [
        "create_account", "delete_refused", "delete_asked", "export_tenant", "delete_tenant"]
    for table, expected in (("tenants", 0), ("deletions", 0), ("wake", 0), ("tombstones", 1)):
        assert life.sql(f"select count (*) from {table} where client_id = %s",
                        (one.client_id,)) == [(expected,)]
    assert life.sql("select body from feed order by seq desc limit 1") == [
        ({"client_id": one.client_id, "state": "deleted"},)]
    check_receipt(life, one, receipt, printed, folder)


def verify_as_documented(printed, public):
    """As the README tells others to do it."""
    receipt = json.loads(printed)
    signature = base64.urlsafe_b64decode(receipt.pop("signature") + "==")
    text = b"docket-receipt/1\n" + json.dumps(
        receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    verify = ctypes.CDLL("libsodium.so.23").crypto_sign_verify_detached
    length = ctypes.c_ulonglong
    assert verify(signature, text, length(len(text)), public) == 0
    assert verify(signature, text + b" ", length(len(text) + 1), public) != 0


def check_receipt(life, one, receipt, printed, folder):
    with open(receipt, encoding="utf-8") as stream:
        assert stream.read() == printed
    assert run(life, "receipt", receipt)[0].startswith(f"good: {one.client_id}")
    with open(os.path.join(life.keys, "receipt.pub"), encoding="ascii") as stream:
        public = stream.read().strip()
    run(life, "receipt", receipt, "--public", public)
    run(life, "receipt", receipt, "--public", "00" * 32, status=1)
    verify_as_documented(printed, bytes.fromhex(public))
    tampered = os.path.join(folder, "tampered.json")
    for old, new in (('"tickets": 1', '"tickets": 2'), (one.client_id, "cl_AAAAAAAAAAAAAAAA"),
                     ('"open_tickets": 0', '"open_tickets": 0, "more": 1')):
        assert old in printed
        with open(tampered, "w", encoding="utf-8") as stream:
            stream.write(printed.replace(old, new))
        run(life, "receipt", tampered, status=1)
    again = os.path.join(folder, "again.json")
    assert run(life, *delete(one, again))[0] == printed
    with open(again, encoding="utf-8") as stream:
        assert stream.read() == printed


def test_life_deleted_email_is_free_and_its_request_id_is_not(life, company, folder):
    with Client(life.public, source=own_source()) as client:
        params = {"name": "Phoenix", "email": f"{new_id().hex()}@life.example",
                  "password": PASSWORD, "budget_ms": 30000}
        first_id = new_id()
        first = client.patient("create_account", request_id=first_id, **params)
        run(life, "delete", first["client_id"], "--confirm", first["client_id"],
            "--receipt", os.path.join(folder, "r.json"))
        with refused("conflict", "request_id"):
            client.call("create_account", request_id=first_id, **params)
        second = client.patient("create_account", request_id=new_id(), **params)
        assert second["status"] == "created" and second["client_id"] != first["client_id"]


def leader(life):
    rows = life.sql("select w.node from leader l join workers w using (incarnation)")
    return rows[0][0] if rows else None


def test_life_delete_ends_although_command_owner_and_leader_are_killed(life, company, folder):
    one, neighbour = company(), company(64)
    receipt, out = os.path.join(folder, "receipt.json"), os.path.join(folder, "out")
    database = one.database
    tickets = [one.create("silver")["ticket_id"] for _ in range(3)]
    words = delete(one, receipt, "--export", out, "--even-with-open-tickets")
    pids = []

    def state():
        rows = life.sql("select phase from deletions where client_id = %s", (one.client_id,))
        return rows[0][0] if rows else None

    with Load(neighbour, patient=True) as load:
        node = leader(life)
        life.kill(node, signal.SIGSTOP)  # or all could be over before the command is killed
        process = start(life, *words)
        wait_until(state, every_s=0.001)
        process.kill()
        process.communicate()
        pids.append((node, life.kill(node)))
        wait_until(lambda: state() == "fenced", 30)  # its next leader got so far without a command
        assert life.sql("select count (*) from pg_database where datname = %s",
                        (database,)) == [(1,)], "dropped before it was exported"
        life.restarted(*pids[-1])
        _, err = run(life, *words[:6], "--even-with-open-tickets", status=1)
        assert "--export" in err
        process = start(life, *words)
        wait_until(lambda: life.sql("select 1 from deletions where manifest is not null")
                   or process.poll() is not None, every_s=0.001)
        node = leader(life) or "worker-0"
        pids.append((node, life.kill(node)))
        process.kill()
        process.communicate()
        said = json.loads(run(life, *words)[0])
        life.restarted(*pids[-1])
    assert load.failed == []
    assert is_gone(life, database)
    assert said["open_tickets"] == 3 and said["rows"]["tickets"] == 3
    assert {row["ticket_id"] for row in read_export(out)[1]["tickets"]} == set(tickets)
    found = actions(life, one.client_id)
    assert found.count("delete_asked") == found.count("delete_tenant") == 1
    check_unknown(life, one, tickets[0])


def test_life_delete_waits_for_an_owner_that_hangs_and_no_longer(life, company, folder):
    """A worker that is stopped holds the lock; its time is over after 2 s, and when it wakes up it
    can say nothing about the tenant that was deleted meanwhile."""
    one = company()
    database = one.database
    node = life.sql("select w.node from wake k join workers w on w.incarnation = k.owner"
                    " where k.client_id = %s", (one.client_id,))[0][0]
    pid = life.kill(node, signal.SIGSTOP)
    try:
        run(life, *delete(one, os.path.join(folder, "r.json")))
        assert is_gone(life, database)
    finally:
        life.signal_pid(pid, signal.SIGCONT)
    alive = "select count (*) from workers where dead_at is null"
    wait_until(lambda: life.sql(alive) == [(2,)], 20)
    with Client(life.public, source=own_source()) as client, refused("not_found"):
        client.patient("availability", client_id=one.client_id, token=one.token)
