# SPDX-License-Identifier: Apache-2.0
"""New steps of the schema into a running fleet: nobody's request fails, whatever is killed goes on
where it stopped, and one tenant's trouble stays its own.

The tests are one story, in this order: each step finds the tenants where the one before left them.
The steps are the test's own (DOCKET_SCHEMAS); each notes in a table `ran` that it ran.
"""

import collections
import json
import os
import signal
import subprocess
import threading
import time

import psycopg2
import pytest
from client import RETRY, Client, new_id
from conftest import discard
from fleet import DOCKET, Fleet, wait_until

BUSY, ASLEEP = 25, 25
TENANTS = BUSY + ASLEEP
PACE_S = 0.1  # each busy tenant is asked this often
ATTEMPT_S = 6
IDLE_MS = 1000
GAP_MAX_S = 2.0  # between two answers of one tenant, while nothing is killed
RUN_S = 60


class Company:
    def __init__(self, client_id, database):
        self.client_id, self.database = client_id, database
        self.late = []  # (when it was sent, seconds to its answer)
        self.answered = []  # when


class Load(threading.Thread):
    """Asks every company in turn at a steady pace, all the time. What may be tried again is."""

    def __init__(self, fleet, companies):
        super().__init__(daemon=True)
        self.client = Client(fleet.internal, keys=fleet.keys)
        self.companies = companies
        self.ending = threading.Event()
        self.errors = collections.Counter()
        self.open = {}  # msgid -> (company, request_id, sent, first sent)
        self.again = []  # (not before, company, request_id, first sent)
        self.acked = 0
        self.wrong = None

    def send(self, company, request_id, first):
        msgid = self.client.send("create_ticket", client_id=company.client_id,
                                 request_id=request_id, ticket_type="bronze")
        self.open[msgid] = (company, request_id, time.monotonic(), first)

    def note(self, answer):
        msgid, error, result = self.client.take(answer)
        if msgid not in self.open:
            return
        company, request_id, sent, first = self.open.pop(msgid)
        now = time.monotonic()
        if error:
            assert error["code"] in RETRY - {"internal"}, error
            self.errors[error["code"]] += 1
            pause = error.get("retry_after_ms", 50) / 1000
            self.again.append((now + pause, company, request_id, first))
            return
        assert result["status"] == "created", result
        self.acked += 1
        company.late.append((first, now - first))
        company.answered.append(now)

    def turn(self):
        now = time.monotonic()
        for msgid, (company, request_id, sent, first) in list(self.open.items()):
            if now - sent > ATTEMPT_S:
                del self.open[msgid]
                self.errors["silence"] += 1
                self.again.append((now, company, request_id, first))
        due = [one for one in self.again if one[0] <= now]
        self.again = [one for one in self.again if one[0] > now]
        for _, *request in due:
            self.send(*request)
        for answer in self.client.receive(0.005):
            self.note(answer)

    def run(self):
        try:
            next_s = time.monotonic()
            at = 0
            while not self.ending.is_set():
                while time.monotonic() >= next_s:
                    self.send(self.companies[at % len(self.companies)], new_id(), time.monotonic())
                    at += 1
                    next_s += PACE_S / len(self.companies)
                self.turn()
            end = time.monotonic() + 20
            while self.open or self.again:
                assert time.monotonic() < end, "requests without an end"
                self.turn()
        except BaseException as problem:  # told by the test's own thread
            self.wrong = problem
        finally:
            self.client.close()

    def alive(self):
        assert not self.wrong, self.wrong
        return True

    def figures(self, begin, end):
        """p99 of what was asked in that time, and the longest silence of one tenant, in s."""
        late = sorted(s for one in self.companies for sent, s in one.late if begin <= sent <= end)
        gaps = []
        for one in self.companies:
            times = [begin] + [when for when in one.answered if begin < when < end] + [end]
            gaps.append(max(b - a for a, b in zip(times, times[1:])))
        return late[int(len(late) * 0.99)], max(gaps), len(late)


class Story:
    def __init__(self, fleet, folder):
        self.fleet = fleet
        self.folder = os.path.join(folder, "steps")
        os.makedirs(os.path.join(self.folder, "tenant"))
        with Client(fleet.internal, keys=fleet.keys) as inside:
            made = inside.ask_all([
                ("create_account", dict(
                    request_id=new_id(), name=f"Company {i}", password="a long password",
                    email=f"{new_id().hex()}@steps.example", resolvers=64, budget_ms=60000))
                for i in range(TENANTS)], timeout_s=90)
        assert not [error for error, _ in made if error]
        rows = dict(fleet.sql("select client_id, database from tenants"))
        self.companies = [Company(one["client_id"], rows[one["client_id"]]) for _, one in made]
        self.busy, self.asleep = self.companies[:BUSY], self.companies[BUSY:]
        self.load = Load(fleet, self.busy)
        self.load.start()
        wait_until(lambda: self.load.alive() and self.load.acked > 3 * BUSY, 30)

    def step(self, number, sql, kind="expand", min_reader=1):
        path = os.path.join(self.folder, "tenant", f"{number:03}-test.sql")
        with open(path, "w", encoding="ascii") as stream:
            stream.write(f"-- min_reader: {min_reader}\n-- kind: {kind}\n"
                         "create table if not exists ran (step int);\n"
                         f"insert into ran values ({number});\n{sql}\n")

    def start(self, *args):
        return subprocess.Popen(
            [DOCKET, "migrate", "--join", self.fleet.postgres_uri(), *args],
            env={**os.environ, "DOCKET_SCHEMAS": self.folder}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *args):
        process = self.start(*args)
        out, told = process.communicate(timeout=RUN_S)
        return process.returncode, out, told

    def status(self):
        code, out, told = self.run("--status", "--json")
        assert code == 0, told
        return json.loads(out)

    def versions(self):
        """{version: tenants}, as the databases say."""
        return collections.Counter(
            self.fleet.sql("select max (version) from schema_version", None, one.database)[0][0]
            for one in self.companies)

    def ran(self, number):
        """How often, by tenant."""
        return collections.Counter(
            self.fleet.sql("select count (*) from ran where step = %s", (number,),
                           one.database)[0][0]
            for one in self.companies)

    def sessions(self, companies):
        return self.fleet.sql(
            "select count (distinct datname) from pg_stat_activity where datname = any (%s)"
            " and application_name like 'docket/worker-%%'",
            ([one.database for one in companies],))[0][0]


@pytest.fixture(scope="module")
def story(session_folder):
    folder = os.path.join(session_folder, "migrate")
    with Fleet(session_folder, data=folder, env={"DOCKET_IDLE_MS": str(IDLE_MS)}) as fleet:
        made = Story(fleet, session_folder)
        yield made
        made.load.ending.set()
        made.load.join(30)
        made.load.alive()
        discard(fleet)


def test_migrate_under_load(story):
    """From one version to the next, half of the tenants asleep: not one request fails."""
    before = story.versions()
    assert len(before) == 1
    base = next(iter(before))
    assert base == story.status()["template"]
    story.step(900, "alter table tickets add column note text;"
                    " create index ran_index on tickets (note);")
    wait_until(lambda: story.sessions(story.asleep) == 0, 20, 0.1)
    wait_until(lambda: story.sessions(story.busy) == BUSY)
    quiet = time.monotonic()
    wait_until(lambda: time.monotonic() - quiet > 2, 5)
    errors, begin = dict(story.load.errors), time.monotonic()
    code, out, told = story.run("--json")
    end = time.monotonic()
    assert code == 0, told
    assert json.loads(out)["done"] == TENANTS
    assert story.versions() == {900: TENANTS}
    assert story.ran(900) == {1: TENANTS}
    assert story.load.alive() and dict(story.load.errors) == errors, story.load.errors
    for name, one in (("before", story.load.figures(quiet, begin)),
                      ("during", story.load.figures(begin, end))):
        print(f"{name}: p99 {one[0] * 1000:.0f} ms, longest gap of a tenant {one[1] * 1000:.0f} ms,"
              f" {one[2]} requests")
    print(f"{TENANTS} tenants in {end - begin:.1f} s, 0 failed requests")
    assert story.load.figures(begin, end)[1] < GAP_MAX_S
    wait_until(lambda: story.sessions(story.asleep) == 0, 20, 0.1)  # and sleep again
    assert story.status()["finished"] == TENANTS
    pooled = story.fleet.sql("select database from pool where state = 'ready' limit 3")
    assert pooled and all(story.fleet.sql("select max (version) from schema_version", None, name)
                          == [(900,)] for (name,) in pooled)


def done(story, number):
    """As the command knows it."""
    return story.fleet.sql("select count (*) from upgrades where version >= %s", (number,))[0][0]


def test_migrate_goes_on_after_kills(story):
    """The command and then a worker die half-way: the next run finishes, and nothing runs twice."""
    story.step(901, "select pg_sleep (0.15);")  # all of them take a second: time to kill
    process = story.start()
    wait_until(lambda: done(story, 901) >= TENANTS // 5, 30)
    process.kill()
    process.communicate(timeout=10)
    assert 0 < done(story, 901) < TENANTS
    process = story.start()
    wait_until(lambda: done(story, 901) >= TENANTS // 2, 30)
    old = story.fleet.kill("worker-0", signal.SIGKILL)
    out, told = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, out + told
    story.fleet.restarted("worker-0", old)
    assert story.versions() == {901: TENANTS}
    assert story.ran(901) == {1: TENANTS}
    assert story.load.alive()


def test_migrate_step_that_fails_is_one_tenants(story):
    """One tenant's database refuses the step, another's keeps it waiting for its lock."""
    broken, locked = story.busy[0], story.busy[1]
    refusing = (f"do $$ begin if current_database () = '{broken.database}' then"
                " raise exception 'not in here'; end if; end $$;")
    story.step(902, "alter table tickets add column other text;" + refusing)
    session = psycopg2.connect(story.fleet.postgres_uri(locked.database))
    session.cursor().execute("lock table tickets in access share mode")
    errors = dict(story.load.errors)
    process = story.start()
    wait_until(lambda: story.fleet.sql(
        "select error like '%%lock timeout%%' from upgrades where client_id = %s",
        (locked.client_id,))[0][0], 40)
    count = len(locked.answered)
    wait_until(lambda: story.load.alive() and len(locked.answered) > count, 10)  # it serves
    session.rollback()
    session.close()
    out, told = process.communicate(timeout=RUN_S)
    assert process.returncode == 1, out + told
    assert f"failed: {broken.client_id}" in out and "not in here" in out, out
    assert story.versions() == {902: TENANTS - 1, 901: 1}
    assert story.ran(902) == {1: TENANTS - 1, 0: 1}
    count = len(broken.answered)
    wait_until(lambda: story.load.alive() and len(broken.answered) > count, 10)
    assert dict(story.load.errors) == errors, story.load.errors
    status = story.status()
    assert [one["client_id"] for one in status["failed"]] == [broken.client_id]
    assert status["finished"] == TENANTS - 1
    code, out, told = story.run("--finish")
    assert code == 1 and f"tenant {broken.client_id} is at version 901" in told, told
    story.step(902, "alter table tickets add column other text;")
    code, out, told = story.run("--json")
    assert code == 0 and json.loads(out)["done"] == 1, told
    assert story.ran(902) == {1: TENANTS}


def test_migrate_finish_waits_for_old_workers(story):
    """A contract step waits for --finish, and --finish for workers that know what it leaves."""
    reads = story.fleet.sql("select min (reads) from workers where dead_at is null")[0][0]
    story.step(903, "alter table tickets drop column other;", "contract", reads + 1)
    code, out, told = story.run()
    assert code == 0 and done(story, 903) == 0, told
    code, out, told = story.run("--finish")
    assert code == 1 and "worker worker-0" in told and "worker worker-1" in told, told
    assert done(story, 903) == 0
    story.step(903, "alter table tickets drop column other;", "contract", reads)
    errors = dict(story.load.errors)
    code, out, told = story.run("--finish")
    assert code == 0, told
    assert story.versions() == {903: TENANTS}
    assert story.load.alive() and dict(story.load.errors) == errors, story.load.errors


def test_migrate_new_tenants_begin_with_the_newest_schema(story):
    with Client(story.fleet.internal, keys=story.fleet.keys) as inside:
        made = inside.patient(
            "create_account", request_id=new_id(), name="Late", password="a long password",
            email=f"{new_id().hex()}@steps.example", budget_ms=30000)
        assert inside.patient("create_ticket", client_id=made["client_id"], request_id=new_id(),
                              ticket_type="gold")["status"] == "created"
    database = story.fleet.sql(
        "select database from tenants where client_id = %s", (made["client_id"],))[0][0]
    assert story.fleet.sql("select max (version) from schema_version", None, database) == [(903,)]


def test_migrate_refuses_a_schema_for_newer_code(story):
    """As if a newer docket had contracted: the owner says why it does not serve."""
    one = story.asleep[0]
    wait_until(lambda: story.sessions([one]) == 0, 20, 0.1)
    story.fleet.sql("insert into schema_version (version, min_reader) values (950, 99)", None,
                    one.database)
    with Client(story.fleet.internal, keys=story.fleet.keys) as inside:
        error, _ = inside.ask("create_ticket", client_id=one.client_id, request_id=new_id(),
                              ticket_type="gold", budget_ms=2000)
        assert error["code"] in ("unavailable", "deadline_exceeded"), error
        assert "a newer docket must serve it" in "".join(story.fleet.logs().values())
        epoch = story.fleet.sql("select epoch from owner", None, one.database)
        story.fleet.sql("delete from schema_version where version = 950", None, one.database)
        inside.patient("create_ticket", client_id=one.client_id, request_id=new_id(),
                       ticket_type="gold")
        assert story.fleet.sql("select epoch from owner", None, one.database)[0][0] == (
            epoch[0][0] + 1)  # nothing was taken before


@pytest.mark.parametrize("args, code", [
    (["--help"], 0), (["--nonsense"], 2), (["--status", "--finish"], 2),
    (["--join", "postgresql://docket@127.0.0.1:1/docket_control"], 1),
])
def test_migrate_exit_status(args, code):
    where = [] if "--join" in args else ["--join", "postgresql://nobody@127.0.0.1:1/x"]
    done_ = subprocess.run([DOCKET, "migrate", *args, *where], capture_output=True, timeout=20,
                           check=False)
    assert done_.returncode == code
