# SPDX-License-Identifier: Apache-2.0
"""Data does not grow for ever, and no promise is broken by deleting. Old rows are written as the
administrator, while a tenant is asleep; the pace is shortened, the ages are the real ones."""

import contextlib
import os
import threading
import time

import psycopg2
import pytest
from client import Client, Tenant, calm, new_id, now_ms, refused, ticket_number
from conftest import discard
from fleet import Fleet, wait_until

AGE_MS, PROBE_MS, IDLE_MS = 300, 1500, 1000
OWNERS_LOCK = 110429572130164
MANY = 100000
WITH_ID = 3000  # of the many, that still have their request id
GONE_S = 120  # the many, on a machine that has other things to do
P99_MS = 500  # of a request meanwhile

# Tickets of bronze, one a second from `first` on, made `ago` before now and later: resolved, but
# each tenth is cancelled and each eleventh was never resolved.
TICKETS = """
insert into tickets (id, request_id, slot_start, lane, deadline, created_at, dispatched_at,
    resolved_at, cancelled_at, state, breached, at_risk, class, subject)
select i, case when i > %(bare)s then gen_random_uuid() end,
    date_bin('1 minute', made + interval '1 minute', 'epoch'),
    case when i %% 10 <> 0 then i %% 60 end, made + interval '480 minutes', made,
    case when i %% 10 <> 0 then made end, case when i %% 10 <> 0 and i %% 11 <> 0 then made end,
    case when i %% 10 = 0 then made end,
    case when i %% 10 = 0 then 3 when i %% 11 = 0 then 1 else 2 end, i %% 11 = 0, false, 'bronze',
    null
from (select i, now() - %(ago)s::interval + (i - %(first)s) * interval '1 s' as made
      from generate_series(%(first)s, %(last)s) i) s
"""
JOURNAL = """
insert into journal
select i, 1, now() - %(ago)s::interval + (i - %(first)s) * interval '1 s', '\\x90'
from generate_series(%(first)s, %(last)s) i
"""


class Company:
    """A tenant without a session: nothing but its tickets activates it."""

    def __init__(self, fleet, inside):
        self.fleet, self.inside = fleet, inside
        made = inside.patient(
            "create_account", request_id=new_id(), name="Archive", password="a long password",
            email=f"{new_id().hex()}@age.example", budget_ms=30000, resolvers=64)
        self.client_id = made["client_id"]
        self.database = fleet.sql(
            "select database from tenants where client_id = %s", (self.client_id,))[0][0]

    def call(self, method, **params):
        return self.inside.patient(method, client_id=self.client_id, **params)

    def create(self, request_id=None, ticket_type="bronze"):
        return self.call(
            "create_ticket", request_id=request_id or new_id(), ticket_type=ticket_type)

    def one(self, statement, values=None):
        return self.fleet.sql(statement, values, self.database)[0][0]

    def sessions(self):
        return self.fleet.sql(
            "select count (*) from pg_stat_activity where datname = %s"
            " and application_name like 'docket/worker-%%'", (self.database,))[0][0]

    @contextlib.contextmanager
    def asleep(self):
        """A cursor in its database, while nobody can own it."""
        connection = psycopg2.connect(self.fleet.postgres_uri(self.database), connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                cursor.execute("select pg_advisory_lock(%s)", (OWNERS_LOCK,))
                yield cursor
            connection.commit()
        finally:
            connection.close()


class Asking(threading.Thread):
    """A request after the other, each answered well; how long they took."""

    def __init__(self, company):
        super().__init__(daemon=True)
        self.company, self.stopped = company, threading.Event()
        self.took_ms, self.failed = [], []

    def run(self):
        fleet, client_id = self.company.fleet, self.company.client_id
        with Client(fleet.internal, keys=fleet.keys) as client:
            while not self.stopped.is_set():
                begun = time.monotonic()
                error, _ = client.ask("create_ticket", client_id=client_id, request_id=new_id(),
                                      ticket_type="bronze")
                self.took_ms.append((time.monotonic() - begun) * 1000)
                if error:
                    self.failed.append(error)
                self.stopped.wait(0.01)

    def stop(self):
        self.stopped.set()
        self.join(20)
        assert not self.is_alive() and not self.failed, self.failed
        return sorted(self.took_ms)


@pytest.fixture(scope="module")
def stage(session_folder):
    with Fleet(session_folder, data=os.path.join(session_folder, "age"), env={
            "DOCKET_AGE_MS": str(AGE_MS), "DOCKET_PROBE_MS": str(PROBE_MS),
            "DOCKET_IDLE_MS": str(IDLE_MS)}) as fleet:
        with Client(fleet.internal, keys=fleet.keys) as inside:
            yield fleet, inside
        discard(fleet)


def restart_workers(fleet):
    for name in ("worker-0", "worker-1"):
        fleet.restarted(name, fleet.kill(name))


def test_age_the_many_go_under_load(stage):
    fleet, inside = stage
    company = Company(fleet, inside)
    calm(3)
    first = company.create()["ticket_id"]
    assert ticket_number(first) == 1
    assert company.call("cancel_ticket", ticket_id=first)["status"] == "cancelled"
    with company.asleep() as cursor:
        cursor.execute(
            "update tickets set created_at = c, deadline = c + interval '480 minutes', "
            "slot_start = date_bin('1 minute', c, 'epoch'), cancelled_at = c "
            "from (select now() - interval '600 days' as c) t")
        cursor.execute("update journal set at = now() - interval '600 days'")
        last = cursor.execute("select max(seq) from journal") or cursor.fetchone()[0]
        cursor.execute(TICKETS, dict(first=2, last=MANY, ago="500 days", bare=MANY - WITH_ID))
        cursor.execute(JOURNAL, dict(first=last + 1, last=MANY, ago="500 days"))
        # a little younger than what goes, and 50 and 40 hours old
        for number, ago in ((1, "399 days"), (2, "50 hours"), (3, "40 hours")):
            rows = dict(first=MANY + 100 * (number - 1) + 1, last=MANY + 100 * number, ago=ago,
                        bare=0)
            cursor.execute(TICKETS, rows)
            cursor.execute(JOURNAL, dict(rows, ago="6 days" if number == 1 else ago))
        cursor.execute("select request_id from tickets where id = %s", (MANY + 299,))
        young = cursor.fetchone()[0]
    highest = MANY + 300
    begun = time.monotonic()
    load = Asking(company)
    load.start()

    def gone():
        return company.one("select (select count(*) from tickets where id <= %s) "
                           "+ (select count(*) from journal where seq <= %s)", (MANY, MANY)) == 0

    wait_until(gone, GONE_S, 0.5)
    wait_until(lambda: company.one(
        "select count(*) from tickets where request_id is not null and id <= %s",
        (MANY + 200,)) == 0, 20, 0.2)
    took_ms = load.stop()
    seconds = time.monotonic() - begun
    p99_ms = took_ms[int(len(took_ms) * 0.99)]
    print(f"{MANY} tickets and journal rows in {seconds:.1f} s; {len(took_ms)} requests meanwhile, "
          f"p50 {took_ms[len(took_ms) // 2]:.1f} ms, p99 {p99_ms:.1f} ms, slowest "
          f"{took_ms[-1]:.1f} ms")
    assert p99_ms < P99_MS

    # what is younger is all there, and what is promised is untouched
    assert company.one("select count(*) from tickets where id between %s and %s",
                       (MANY + 1, highest)) == 300
    assert company.one("select count(*) from tickets where id between %s and %s "
                       "and request_id is not null", (MANY + 201, highest)) == 100
    assert company.one("select count(*) from journal where seq between %s and %s",
                       (MANY + 1, highest)) == 300
    made = company.one("select count(*) from tickets where id > %s and state < 3 "
                       "and request_id is not null", (highest,))
    assert made >= company.one("select max(id) from tickets") - highest > 0
    with refused("not_found"):
        inside.call("get_ticket", ticket_id=first)
    for method in ("cancel_ticket", "resolve_ticket"):
        with refused("not_found"):
            inside.call(method, ticket_id=first)
    listed = company.call("list_tickets", limit=1)["tickets"]
    assert [ticket_number(one["ticket_id"]) for one in listed] == [MANY + 1]

    # numbers go on, and a young request id is still known, whoever owns the tenant
    restart_workers(fleet)
    newest = company.one("select max(id) from tickets")
    rows = company.one("select max(seq) from journal")
    again = company.create(request_id=young)
    assert again["replayed"] and ticket_number(again["ticket_id"]) == MANY + 299
    assert ticket_number(company.create()["ticket_id"]) == newest + 1
    assert company.one("select min(seq) from journal where seq > %s", (rows,)) == rows + 1


def test_age_a_sleeping_tenant_is_looked_into_and_sleeps_on(stage):
    fleet, inside = stage
    company = Company(fleet, inside)
    with company.asleep() as cursor:
        cursor.execute(TICKETS, dict(first=1, last=700, ago="500 days", bare=0))
        cursor.execute(JOURNAL, dict(first=1, last=700, ago="500 days"))
    # the newest of each stays: numbers continue there
    wait_until(lambda: company.one("select count(*) from tickets") == 1, 30, 0.1)
    wait_until(lambda: company.one("select count(*) from journal") == 1, 30, 0.1)
    wait_until(lambda: company.sessions() == 0, 10, 0.01)
    epoch = company.one("select epoch from owner")
    assert company.one("select request_id is null from tickets where id = 700")
    restart_workers(fleet)
    calm(5)  # its dispatch would be a row of the journal, too
    assert ticket_number(company.create()["ticket_id"]) == 701
    assert company.one("select max(seq) from journal") == 701
    assert company.one("select epoch from owner") > epoch


def test_age_a_dead_token_stays_dead(stage):
    fleet, _ = stage
    tenant = Tenant(fleet)
    database = tenant.database
    assert tenant.call("logout")["status"] == "ok"
    fleet.sql("insert into revoked_tokens select decode(md5(i::text), 'hex'), now() - "
              "interval '1 minute' from generate_series(1, 1000) i", None, database)

    def purged():
        with refused("unauthenticated"):
            tenant.call("availability")
        return fleet.sql("select count(*) from revoked_tokens", None, database)[0][0] == 1

    wait_until(purged, 20, 0.1)
    with refused("unauthenticated"):
        tenant.call("availability")
    tenant.token = tenant.login()["token"]
    tenant.call("availability")
    tenant.close()


def test_age_what_was_not_published_stays(stage):
    fleet, inside = stage
    company = Company(fleet, inside)
    conf = os.path.join(fleet.data_folder, "nats.conf")
    said = {name: len(text) for name, text in fleet.logs().items() if name.startswith("worker")}
    assert len(said) == 2
    os.rename(conf, conf + ".away")
    pid = fleet.kill("nats-0")

    def noticed(name):
        return "events wait in the journals" in fleet.logs()[name][said[name]:]

    # The rows have no events: a relay that has not seen yet that NATS is gone takes them as sent.
    # A worker may have said the same of an earlier connection, and then says it again in 10 s.
    wait_until(lambda: all(noticed(name) for name in said), 30)
    with company.asleep() as cursor:
        cursor.execute(TICKETS, dict(first=1, last=300, ago="401 days", bare=0))
        cursor.execute(JOURNAL, dict(first=1, last=300, ago="8 days"))
        cursor.execute("update relay set acked_seq = 100")

    def rows():
        company.call("availability")  # awake, for its relay
        return company.one("select count(*) from journal")

    wait_until(lambda: rows() and company.one("select count(*) from tickets") == 1, 20, 0.1)
    wait_until(lambda: rows() == 200, 20, 0.1)
    end = now_ms() + 4 * AGE_MS
    wait_until(lambda: rows() != 200 or now_ms() > end, 20, 0.1)
    assert company.one("select min(seq) from journal") == 101
    os.rename(conf + ".away", conf)
    fleet.restarted("nats-0", pid)
    wait_until(lambda: rows() == 1, 40, 0.1)
    assert company.one("select seq from journal") == 300
