# SPDX-License-Identifier: Apache-2.0
"""What dies, and what must not: under load, with every acknowledged ticket counted afterwards.

The fleet is this module's own: two brokers, two workers.
"""

import os
import random
import signal
import time

import pytest
from conftest import discard
from client import (
    PASSWORD, RETRY, Client, Tenant, calm, id_text, is_replay, new_id, refused,
    ticket_number,
)
from fleet import Fleet, wait_until

TENANTS = 8
OPEN_EACH = 8  # requests in flight for each tenant
ATTEMPT_S = 6  # silence for so long ends an attempt: the default budget is 5 s


@pytest.fixture(scope="module")
def crash_fleet(session_folder):
    with Fleet(session_folder, data=os.path.join(session_folder, "crash"), brokers=2) as fleet:
        yield fleet
        discard(fleet)


@pytest.fixture(scope="module")
def companies(crash_fleet):
    made = [Tenant(crash_fleet, resolvers=64) for _ in range(TENANTS)]
    yield made
    for one in made:
        one.close()


@pytest.fixture(scope="module")
def inside(crash_fleet):
    with Client(crash_fleet.internal, keys=crash_fleet.keys) as client:
        yield client


class Load:
    """A producer as the contract wants it: each request is repeated with its own request_id until
    it has an answer that is final. Notes what was acknowledged, and when for each tenant."""

    def __init__(self, companies, seed=1):
        self.companies = companies
        self.client = Client(companies[0].fleet.public)
        self.generator = random.Random(seed)
        self.open = {}  # msgid -> (tenant, request_id, class, sent at)
        self.again = []  # (not before, tenant, request_id, class)
        self.acked = {}  # (tenant, request_id) -> ticket_id
        self.last_ack = [0.0] * len(companies)
        self.errors = {}

    def close(self):
        self.client.close()

    def send(self, tenant, request_id, ticket_type):
        one = self.companies[tenant]
        msgid = self.client.send(
            "create_ticket", token=one.token, client_id=one.client_id, request_id=request_id,
            ticket_type=ticket_type, subject=id_text(request_id))
        self.open[msgid] = (tenant, request_id, ticket_type, time.monotonic())

    def note(self, answer):
        msgid, error, result = self.client.take(answer)
        if msgid not in self.open:
            return  # of an attempt that was given up: its successor decides
        tenant, request_id, ticket_type, _ = self.open.pop(msgid)
        if error:
            self.errors[error["code"]] = self.errors.get(error["code"], 0) + 1
            assert error["code"] in RETRY - {"internal"}, error
            pause = error.get("retry_after_ms", 50) / 1000
            self.again.append((time.monotonic() + pause, tenant, request_id, ticket_type))
            return
        assert result["status"] == "created", result
        known = self.acked.setdefault((tenant, request_id), result["ticket_id"])
        assert known == result["ticket_id"], "one request_id, two tickets"
        self.last_ack[tenant] = time.monotonic()

    def step(self, new=True):
        now = time.monotonic()
        for msgid, (tenant, request_id, ticket_type, sent) in list(self.open.items()):
            if now - sent > ATTEMPT_S:
                del self.open[msgid]
                self.again.append((now, tenant, request_id, ticket_type))
        due = [one for one in self.again if one[0] <= now]
        self.again = [one for one in self.again if one[0] > now]
        for _, *request in due:
            self.send(*request)
        # Each tenant has its own share of the window: one's trouble does not silence others.
        waiting = [0] * len(self.companies)
        for tenant in [one[0] for one in self.open.values()] + [one[1] for one in self.again]:
            waiting[tenant] += 1
        for tenant in range(len(self.companies) if new else 0):
            for _ in range(OPEN_EACH - waiting[tenant]):
                self.send(tenant, new_id(), self.generator.choice(["silver", "bronze"]))
        for answer in self.client.receive(0.02):
            self.note(answer)

    def run_until(self, what, bound_s):
        """Keeps the load up until `what` is true."""
        end = time.monotonic() + bound_s
        while not what():
            assert time.monotonic() < end, f"not within {bound_s} s; errors: {self.errors}"
            self.step()

    def all_served_after(self, begin):
        return lambda: min(self.last_ack) > begin

    def settle(self, bound_s=30):
        """No new ones; until everything asked for has its final answer."""
        end = time.monotonic() + bound_s
        while self.open or self.again:
            assert time.monotonic() < end, f"{len(self.open)} are open; errors: {self.errors}"
            self.step(new=False)

    def audit(self):
        """The databases against everything that was acknowledged."""
        for at, tenant in enumerate(self.companies):
            rows = tenant.sql(
                "select id, request_id::text, subject, slot_start + '1 min' <= deadline,"
                " lane is null from tickets where subject is not null")
            of_id = {row[1]: row for row in rows}
            assert len(of_id) == len(rows), "a request_id twice"
            mine = {id_text(request_id): ticket_id
                    for (who, request_id), ticket_id in self.acked.items() if who == at}
            missing = set(mine) - set(of_id)
            assert not missing, f"{len(missing)} acknowledged tickets are lost"
            for request_id, ticket_id in mine.items():
                number, _, subject, in_time, _ = of_id[request_id]
                assert number == ticket_number(ticket_id)
                assert subject == request_id
                assert in_time
            double = tenant.sql(
                "select count(*) - count(distinct (slot_start, lane)) from tickets"
                " where lane is not null")
            assert double == [(0,)]
        return len(self.acked)


@pytest.fixture
def load(companies):
    made = Load(companies, seed=random.Random(len(companies)).random())
    yield made
    made.close()


def under_load(load, fault, healed_s):
    """Load, the fault in the middle of it, service for every tenant again, then the count."""
    begin = time.monotonic()
    load.run_until(load.all_served_after(begin), 20)
    before = len(load.acked)
    fault()
    struck = time.monotonic()
    # Acknowledgements that were under way do not count as healed.
    load.run_until(lambda: time.monotonic() > struck + 0.5, 5)
    load.run_until(load.all_served_after(time.monotonic()), healed_s)
    healed = time.monotonic() - struck
    load.settle()
    after = load.audit()
    print(f"acknowledged {before} before, {after} in the end; served again {healed:.1f} s after;"
          f" errors {load.errors}")
    assert after > before


# -- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["worker-0", "worker-1"])
def test_worker_killed_under_load(crash_fleet, load, name):
    pid = crash_fleet.pids()[name]
    under_load(load, lambda: crash_fleet.kill(name), 15)
    crash_fleet.restarted(name, pid)


def test_both_workers_killed_under_load(crash_fleet, load):
    pids = crash_fleet.pids()
    under_load(load, lambda: [crash_fleet.kill(name) for name in ("worker-0", "worker-1")], 20)
    for name in ("worker-0", "worker-1"):
        crash_fleet.restarted(name, pids[name])


@pytest.mark.parametrize("name", ["worker-0", "worker-1"])
def test_worker_stopped_under_load(crash_fleet, load, name):
    """A process that hangs is replaced, the leader too; when it wakes it says nothing false."""
    pid = crash_fleet.pids()[name]
    try:
        under_load(load, lambda: os.kill(pid, signal.SIGSTOP), 20)
    finally:
        Fleet.signal_pid(pid, signal.SIGCONT)
    begin = time.monotonic()
    load.run_until(lambda: time.monotonic() > begin + 1, 5)
    load.run_until(load.all_served_after(time.monotonic()), 15)
    load.settle()
    load.audit()


def test_postgres_killed_under_load(crash_fleet, load):
    pid = crash_fleet.pids()["postgres-0"]
    under_load(load, lambda: crash_fleet.kill("postgres-0"), 30)
    crash_fleet.restarted("postgres-0", pid)


def test_postgres_backends_killed_under_load(crash_fleet, load):
    """kill -9 of one backend makes PostgreSQL restart all of them."""
    backend = crash_fleet.sql(
        "select pid from pg_stat_activity where application_name like 'docket/%' limit 1")[0][0]
    under_load(load, lambda: os.kill(backend, signal.SIGKILL), 30)


def test_connections_terminated_under_load(crash_fleet, load):
    under_load(load, lambda: crash_fleet.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname ~ '^t_' and pid <> pg_backend_pid()"), 15)


def test_broker_killed_under_load(crash_fleet, load):
    pid = crash_fleet.pids()["broker-0"]
    under_load(load, lambda: crash_fleet.kill("broker-0"), 15)
    crash_fleet.restarted("broker-0", pid)


def test_nats_killed_under_load(crash_fleet, load):
    """Nobody notices."""
    pid = crash_fleet.pids()["nats-0"]
    begin = time.monotonic()
    load.run_until(load.all_served_after(begin), 10)
    crash_fleet.kill("nats-0")
    struck = time.monotonic()
    load.errors.clear()
    load.run_until(lambda: time.monotonic() > struck + 1.5, 5)
    load.settle()
    assert not load.errors
    load.audit()
    crash_fleet.restarted("nats-0", pid)


# -- what memory forgot, the database knows ------------------------------------------------------


def restart_workers(fleet):
    pids = fleet.pids()
    for name in ("worker-0", "worker-1"):
        fleet.kill(name)
    for name in ("worker-0", "worker-1"):
        fleet.restarted(name, pids[name])


def patient_answer(tenant, **params):
    return tenant.client.patient("create_ticket", **tenant.with_defaults("create_ticket", params))


def test_old_id_in_a_full_group_after_a_restart(crash_fleet):
    """Ids from before the restart among 250 new ones: found, and the others are unaffected."""
    tenant = Tenant(crash_fleet, resolvers=4)
    old = [{"request_id": new_id(), "ticket_type": "silver", "subject": f"old {at}"}
           for at in range(5)]
    first = [tenant.create(**params) for params in old]
    bare = {"request_id": new_id(), "ticket_type": "silver"}
    first_bare = tenant.create(**bare)
    held = []
    restart_workers(crash_fleet)
    wait_until(lambda: not tenant.ask("availability")[0], 20)
    requests = [{"ticket_type": "bronze"} for _ in range(249)]
    requests[10:10] = [old[0]]
    requests[100:100] = [old[1], {**old[2], "subject": "another"}, {**bare, "payload": b""}]
    requests[200:200] = [old[3], {**bare, "subject": None}, {**old[4], "ticket_type": "gold"}]
    answers = tenant.client.ask_all(
        [("create_ticket", tenant.with_defaults("create_ticket", dict(one))) for one in requests])
    for request, (error, result) in zip(requests, answers):
        if request in old[:2] or request == old[3]:
            assert is_replay(result, first[old.index(request)])
        elif request.get("subject") == "another":
            assert (error["code"], error["field"]) == ("conflict", "subject")
        elif request["ticket_type"] == "gold":
            assert (error["code"], error["field"]) == ("conflict", "ticket_type")
        elif request.get("payload") == b"":
            assert (error["code"], error["field"]) == ("conflict", "payload")
        elif "subject" in request:
            assert is_replay(result, first_bare)
        else:
            assert result["status"] == "created" and "replayed" not in result
            held.append(result["ticket_id"])
    assert len(set(held)) == 249
    assert tenant.sql("select count(*) from tickets") == [(249 + 6,)]
    tenant.close()


def test_holds_after_a_crash(crash_fleet, inside):
    """A hold lost in a crash is granted iff its slot is still free; what was allocated is known."""
    tenant = Tenant(crash_fleet)
    calm(15)
    ours = {"client_id": tenant.client_id, "ticket_type": "silver"}
    held = [inside.call("validate_eta", **ours, hold_ms=120000) for _ in range(3)]
    request_id = new_id()
    made = inside.call("allocate_slot", **ours, slot_id=held[0]["slot_id"], request_id=request_id)
    restart_workers(crash_fleet)

    def allocate(at, request_id=None):
        return inside.patient("allocate_slot", **ours, slot_id=held[at]["slot_id"],
                              request_id=request_id or new_id())

    assert is_replay(allocate(0, request_id), made)
    assert allocate(0) == {"status": "taken"}
    assert inside.patient("release_slot", slot_id=held[0]["slot_id"]) == {"status": "taken"}
    lost = allocate(1)
    assert lost["status"] == "created"
    assert lost["slot_start_ms"] == held[1]["slot_start_ms"]
    assert allocate(1) == {"status": "taken"}
    # The third's slot goes to others: tickets fill everything of that class.
    filled = tenant.create_many(240, "silver")
    assert held[2]["slot_start_ms"] in {
        one["slot_start_ms"] for one in filled if one["status"] == "created"}
    assert allocate(2) == {"status": "taken"}
    tenant.close()


def test_dead_tokens_stay_dead_after_a_crash(crash_fleet):
    tenant = Tenant(crash_fleet)
    dead, alive_token = tenant.token, tenant.login()["token"]
    tenant.call("logout")
    changed = Tenant(crash_fleet)
    changed.call("change_password", password=PASSWORD, new_password="a new password")
    restart_workers(crash_fleet)
    tenant.client.patient("availability", token=alive_token, client_id=tenant.client_id)
    with refused("unauthenticated"):
        tenant.client.patient("availability", token=dead, client_id=tenant.client_id)
    with refused("unauthenticated"):
        changed.client.patient("availability", token=changed.token, client_id=changed.client_id)
    assert changed.login("a new password")["status"] == "ok"
    with refused("unauthenticated"):
        changed.login(PASSWORD)
    tenant.close()
    changed.close()


def test_settings_and_suspension_survive(crash_fleet, inside):
    tenant = Tenant(crash_fleet)
    inside.call("set_tenant", client_id=tenant.client_id, resolvers=3, classes={"gold": 60},
                suspended=True)
    restart_workers(crash_fleet)
    wait_until(lambda: not tenant.ask("availability")[0], 20)
    with refused("suspended"):
        tenant.create()
    calm()
    assert tenant.call("availability")["classes"].keys() == {"gold"}
    assert tenant.call("availability")["classes"]["gold"]["free"] == 3 * 59
    tenant.close()


# -- two brokers ---------------------------------------------------------------------------------


@pytest.fixture
def brokers(crash_fleet):
    made = [Client(address) for address in crash_fleet.ready["public"].split(",")]
    yield made
    for one in made:
        one.close()


def test_every_broker_serves_a_new_account_at_once(crash_fleet, brokers):
    assert {one.call("ping")["node"] for one in brokers} == {"broker-0", "broker-1"}
    for _ in range(3):
        tenant = Tenant(crash_fleet)
        for one in brokers:
            assert one.call("availability", token=tenant.token,
                            client_id=tenant.client_id)["status"] == "ok"
        tenant.close()


def test_a_dead_token_is_dead_through_every_broker(crash_fleet, brokers):
    tenant = Tenant(crash_fleet)
    ticket_id = tenant.create()["ticket_id"]
    params = {"token": tenant.token, "client_id": tenant.client_id}
    for one in brokers:
        assert one.call("availability", **params)["status"] == "ok"
    brokers[0].call("logout", **params)
    for one in brokers:
        with refused("unauthenticated"):
            one.call("availability", **params)
        with refused("unauthenticated"):
            one.call("get_ticket", token=tenant.token, ticket_id=ticket_id)
    tenant.close()


def test_the_same_request_through_both_brokers(crash_fleet, brokers):
    tenant = Tenant(crash_fleet)
    for _ in range(20):
        params = tenant.with_defaults("create_ticket", {"ticket_type": "bronze"})
        msgids = [one.send_batch([("create_ticket", params)] * 3) for one in brokers]
        results = [result for one, ids in zip(brokers, msgids)
                   for error, result in one.wait(ids).values()]
        assert len({result["ticket_id"] for result in results}) == 1
        assert len([1 for result in results if "replayed" not in result]) == 1
    assert tenant.sql("select count(*) from tickets") == [(20,)]
    tenant.close()


# -- one tenant's own trouble --------------------------------------------------------------------


def test_tenant_database_down_is_its_own_trouble(crash_fleet, companies):
    """`unavailable` for that tenant only; the others stay as fast; it heals by itself."""
    tenant, neighbours = companies[0], companies[1:]
    database = tenant.database
    request_id = new_id()
    try:
        crash_fleet.sql(f"alter database {database} allow_connections false")
        crash_fleet.sql("select pg_terminate_backend(pid) from pg_stat_activity"
                        " where datname = %s", (database,))
        error, _ = tenant.ask("create_ticket", ticket_type="bronze", request_id=request_id)
        assert error["code"] == "unavailable"
        assert error["retry_after_ms"] > 0
        slowest = 0.0
        msgids = tenant.client.send_batch(
            [("create_ticket", tenant.with_defaults("create_ticket", {"budget_ms": 1500}))
             for _ in range(500)])
        for _ in range(20):
            for neighbour in neighbours:
                begin = time.monotonic()
                assert neighbour.create("bronze")["status"] == "created"
                slowest = max(slowest, time.monotonic() - begin)
        answers = tenant.client.wait(msgids)
        codes = {error["code"] for error, _ in answers.values() if error}
        assert codes <= {"unavailable", "deadline_exceeded", "overloaded"}
        assert len([1 for error, _ in answers.values() if error]) == 500
        assert slowest < 1
        error, _ = tenant.ask("get_ticket", ticket_id="tk_" + "A" * 39)
        assert error["code"] in ("unavailable", "not_found")
    finally:
        crash_fleet.sql(f"alter database {database} allow_connections true")
    made = patient_answer(tenant, ticket_type="bronze", request_id=request_id)
    assert made["status"] == "created"
    wait_until(lambda: not tenant.ask("availability")[0], 10)


def test_tenant_database_locked_is_its_own_trouble(crash_fleet, companies):
    """Somebody holds a lock in there: commits stand still, and only there."""
    import psycopg2

    tenant, neighbours = companies[2], companies[3:]
    connection = psycopg2.connect(crash_fleet.postgres_uri(tenant.database))
    request_id = new_id()
    try:
        with connection.cursor() as cursor:
            cursor.execute("lock table tickets in access exclusive mode")
            msgid = tenant.client.send("create_ticket", **tenant.with_defaults(
                "create_ticket", {"ticket_type": "bronze", "request_id": request_id}))
            slowest = 0.0
            for _ in range(20):
                for neighbour in neighbours:
                    begin = time.monotonic()
                    assert neighbour.create("bronze")["status"] == "created"
                    slowest = max(slowest, time.monotonic() - begin)
            assert slowest < 1
            error, _ = tenant.client.wait([msgid])[msgid]
            assert error["code"] in ("unavailable", "deadline_exceeded"), error
    finally:
        connection.close()
    assert patient_answer(tenant, ticket_type="bronze", request_id=request_id)
    wait_until(lambda: not tenant.ask("availability")[0], 10)


def test_poisoned_request_gets_internal_alone(crash_fleet, companies):
    """The database refuses one request for a reason nobody foresaw."""
    tenant = Tenant(crash_fleet, resolvers=4)
    tenant.create("bronze")
    tenant.sql(
        "create function nobody_foresaw_this() returns trigger language plpgsql as $$ begin"
        " if new.subject = 'poison' then raise exception 'surprise' using errcode = '22000';"
        " end if; return new; end $$;"
        " create trigger surprise before insert on tickets"
        " for each row execute function nobody_foresaw_this()")
    requests = [{"ticket_type": "bronze", "request_id": new_id(), "subject": f"good {at}"}
                for at in range(100)]
    poison = {"ticket_type": "bronze", "request_id": new_id(), "subject": "poison"}
    requests.insert(50, poison)
    open_ones, final, rounds = list(requests), {}, 0
    while open_ones and rounds < 30:
        rounds += 1
        answers = tenant.client.ask_all(
            [("create_ticket", tenant.with_defaults("create_ticket", dict(one)))
             for one in open_ones])
        again, pause = [], 0.02
        for one, (error, result) in zip(open_ones, answers):
            if error and error["code"] in ("unavailable", "overloaded"):
                again.append(one)
                pause = max(pause, error.get("retry_after_ms", 50) / 1000)
            else:
                final[one["subject"]] = (error, result)
        open_ones = again
        wait_until(lambda begin=time.monotonic(), pause=pause: time.monotonic() > begin + pause, 5)
    assert not open_ones, f"{len(open_ones)} without an end after {rounds} rounds"
    error, _ = final.pop("poison")
    assert error and error["code"] == "internal"
    assert {subject: error for subject, (error, _) in final.items() if error} == {}
    assert {result["status"] for _, result in final.values()} == {"created"}
    assert tenant.sql("select count(*) from tickets where subject like 'good %'") == [(100,)]
    # Asked again it gets the same, alone: its neighbours in the same message are unharmed, or
    # succeed on retry.
    for _ in range(2):
        error, _ = tenant.ask("create_ticket", **poison)
        assert error["code"] in ("internal", "unavailable")
        assert patient_answer(tenant, ticket_type="bronze")["status"] == "created"
    assert companies[5].create("bronze")["status"] == "created"
    logs = "\n".join(text for name, text in crash_fleet.logs().items() if "worker" in name)
    assert "surprise" in logs, "`internal` is logged"
    tenant.close()


def test_a_missed_minute_that_always_fails_does_not_spin(crash_fleet):
    """An actor that breaks as soon as it serves is started with a back-off; once its database is
    well again, so is its tenant."""
    tenant = Tenant(crash_fleet)
    tenant.create("bronze")
    tenant.sql(
        "update tickets set slot_start = date_bin('1 minute', clock_timestamp(), 'epoch')"
        " - interval '2 minutes'")
    tenant.sql(
        "create function spin() returns trigger language plpgsql as $$ begin"
        " raise exception 'it spins' using errcode = '23514'; end $$;"
        " create trigger spin before update on tickets for each row execute function spin()")
    ends = f"{tenant.client_id}: ended: it spins"

    def count():
        return sum(text.count(ends) for text in crash_fleet.logs().values())

    crash_fleet.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
        " and application_name like 'docket/worker-%%'", (tenant.database,))
    wait_until(lambda: count() > 3, 15)
    before, begin = count(), time.monotonic()
    wait_until(lambda: time.monotonic() > begin + 5)
    spun = count() - before
    print(f"{spun} activations in 5 s")
    assert spun < 25
    tenant.sql("drop trigger spin on tickets")
    wait_until(lambda: tenant.sql(
        "select slot_start > clock_timestamp() - interval '1 minute' from tickets"
        ) == [(True,)], 10)
    tenant.close()


# -- everything at once --------------------------------------------------------------------------


def test_kill_9_of_everything_and_up_again(new_fleet):
    """Every acknowledged ticket is found again by the next `docket up` on the folder."""
    fleet = new_fleet().start()
    companies = [Tenant(fleet, resolvers=64) for _ in range(3)]
    load = Load(companies)
    load.run_until(lambda: len(load.acked) > 300, 20)
    fleet.kill_everything()
    wait_until(fleet.nobody_left, 15)
    fleet.start()
    client = Client(fleet.public)
    for (who, request_id), ticket_id in list(load.acked.items())[::10]:
        one = companies[who]
        result = client.patient("get_ticket", token=one.token, ticket_id=ticket_id)
        assert result["ticket"]["subject"] == id_text(request_id)
    load.audit()
    load.close()
    client.close()
    for one in companies:
        one.close()
