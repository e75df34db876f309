# SPDX-License-Identifier: Apache-2.0
"""Minutes come although nobody asks: after a worker died, after a restart of everything, and for
tenants that were passivated. The classes are of 2 minutes and the idle time is short, so that all
of it fits into little more than a minute: one minute for all tests (fixture `stories`).
"""

import os
import signal

import pytest
from client import Client, calm, new_id, next_minute_ms, now_ms
from conftest import discard
from fleet import Fleet, wait_until

IDLE_MS = 1000
PROBE_MS = 3000
EARLY_MS = 10000  # a tenant is active so long before something is due
TENANTS = 8
LATE_MS = 5000  # the contract, after a worker died without a word


class Company:
    """A tenant as services inside see it: no login, so nothing but its tickets activates it."""

    def __init__(self, fleet, inside, classes=None):
        self.fleet = fleet
        made = inside.patient(
            "create_account", request_id=new_id(), name="Sleeper", password="a long password",
            email=f"{new_id().hex()}@sleep.example", budget_ms=30000)
        self.client_id = made["client_id"]
        self.database = fleet.sql(
            "select database from tenants where client_id = %s", (self.client_id,))[0][0]
        if classes:
            inside.patient("set_tenant", client_id=self.client_id, classes=classes)

    def create(self, inside, ticket_type="gold"):
        made = inside.patient(
            "create_ticket", client_id=self.client_id, request_id=new_id(),
            ticket_type=ticket_type)
        assert made["status"] == "created"
        return made

    def sql(self, statement, values=None):
        return self.fleet.sql(statement, values, self.database)

    def activity(self):
        """At one moment: is it active (the one connection of its owner), and when is it due by the
        table wake (None without a row)?"""
        return self.fleet.sql(
            "select (select count (*) from pg_stat_activity where datname = %s"
            "   and application_name like 'docket/worker-%%'),"
            " (select due_ms from wake where client_id = %s)", (self.database, self.client_id))[0]

    def sessions(self):
        return self.activity()[0]

    def wake_row(self):
        return self.activity()[1]

    def late_ms(self):
        """Of each dispatch, after the start of its minute."""
        return [float(row[0]) for row in self.sql(
            "select extract (epoch from dispatched_at - slot_start) * 1000 from tickets"
            " where dispatched_at is not null order by slot_start")]


def asleep(company):
    return wait_until(lambda: company.sessions() == 0, 15, 0.1)


def sleeps_until_its_deadline(company):
    """The time in its row, once it has one."""
    def due_ms():
        return company.sessions() == 0 and company.wake_row()

    return wait_until(due_ms, 15, 0.1)


@pytest.fixture(scope="module")
def killed(session_folder):
    """A fleet that loses a worker 4 s before a minute, and `restarted`: one that was stopped and
    started again before it. Nobody asks anything from then on."""
    with Fleet(session_folder, data=os.path.join(session_folder, "wake-killed"),
               env={"DOCKET_IDLE_MS": str(IDLE_MS)}) as fleet:
        yield fleet
        discard(fleet)


@pytest.fixture(scope="module")
def restarted(session_folder):
    with Fleet(session_folder, data=os.path.join(session_folder, "wake-restarted"),
               env={"DOCKET_IDLE_MS": str(IDLE_MS), "DOCKET_PROBE_MS": str(PROBE_MS)}) as fleet:
        yield fleet
        discard(fleet)


@pytest.fixture(scope="module")
def stories(killed, restarted):
    """Tenants of both fleets with tickets for the same minute, and what is done before it."""
    made = {}
    with (Client(killed.internal, keys=killed.keys) as inside_killed,
          Client(restarted.internal, keys=restarted.keys) as inside_restarted):
        both = ((killed, inside_killed), (restarted, inside_restarted))
        one = Company(killed, inside_killed)
        inside_killed.patient("availability", client_id=one.client_id)
        made["idle"] = one
        for fleet, inside in both:
            made[fleet] = ([Company(fleet, inside) for _ in range(TENANTS)],
                           Company(fleet, inside, {"express": 2}))
        calm(17)  # once, for the tickets of both
        for fleet, inside in both:
            companies, sleeper = made[fleet]
            for company in companies:
                company.create(inside)
            sleeper.created = sleeper.create(inside, "express")
    made["minute_ms"] = next_minute_ms(now_ms())
    status, _ = restarted.stop()
    assert status == 0
    restarted.start()
    made["ready_ms"] = now_ms()
    wait_until(lambda: now_ms() >= made["minute_ms"] - 4000, 60, 0.01)
    made["killed_ms"] = now_ms()
    killed.kill("worker-0", signal.SIGKILL)
    yield made


def check_dispatched(companies, minute_ms, done_ms):
    """Each had one ticket for that minute, and what was done before it was done at `done_ms`: a
    swamped machine may need longer for it than the time that was left."""
    late = wait_until(
        lambda: all(found := [company.late_ms() for company in companies]) and found,
        (max(minute_ms, done_ms) - now_ms()) / 1000 + 15, 0.2)
    assert all(len(rows) == 1 for rows in late)
    worst_ms = max(rows[0] for rows in late)
    print(f"dispatched at most {worst_ms:.0f} ms after the minute began")
    assert worst_ms <= max(0, done_ms - minute_ms) + LATE_MS


def test_wake_idle_tenant_is_passivated_and_serves_again(killed, stories):
    one = stories["idle"]
    asleep(one)
    wait_until(lambda: one.wake_row() is None)
    with Client(killed.internal, keys=killed.keys) as inside:
        def is_active_and_marked():
            """Within the idle time of a request, however slow this machine is."""
            inside.patient("availability", client_id=one.client_id)
            return one.activity() == (1, 0)

        wait_until(is_active_and_marked)


def test_wake_worker_killed_without_traffic(killed, stories):
    companies, _ = stories[killed]
    check_dispatched(companies, stories["minute_ms"], stories["killed_ms"])


def test_wake_fleet_restarted_with_tickets_due(restarted, stories):
    companies, _ = stories[restarted]
    check_dispatched(companies, stories["minute_ms"], stories["ready_ms"])


def test_wake_rows_that_are_lost_are_found_by_probing(restarted, stories):
    """The row goes first, then everybody who may have read it: a worker takes over from another
    within milliseconds, rows included."""
    _, sleeper = stories[restarted]
    sleeps_until_its_deadline(sleeper)
    restarted.sql("delete from wake where client_id = %s", (sleeper.client_id,))
    for node in ("worker-0", "worker-1"):
        restarted.kill(node)
    due_ms = wait_until(sleeper.wake_row, 20, 0.1)
    assert due_ms in (0, sleeper.created["deadline_ms"] + 1)


def test_wake_sleeper_is_active_before_its_deadline(killed, stories):
    """It sleeps from its dispatch to its deadline. An operator's hand moves the deadline, so that
    the test need not wait for it. Then both workers die: it may have moved in its sleep, and whose
    it is now knows the old deadline. So the row is all that anybody knows."""
    _, sleeper = stories[killed]
    assert sleeps_until_its_deadline(sleeper) == sleeper.created["deadline_ms"] + 1
    deadline_ms = now_ms() + EARLY_MS + 4000
    sleeper.sql("update tickets set deadline = to_timestamp (%s), created_at = to_timestamp (%s)"
                " - interval '2 min', slot_start = slot_start - interval '3 min'",
                (deadline_ms / 1000, deadline_ms / 1000))
    killed.sql("update wake set due_ms = %s where client_id = %s",
               (deadline_ms + 1, sleeper.client_id))
    for node in ("worker-0", "worker-1"):
        killed.kill(node)
    wait_until(lambda: sleeper.sessions() == 1, 15, 0.1)
    assert now_ms() < deadline_ms
    assert not sleeper.sql("select breached from tickets")[0][0]
    wait_until(lambda: sleeper.sql("select breached from tickets")[0][0],
               (deadline_ms - now_ms()) / 1000 + 5, 0.1)
    assert now_ms() >= deadline_ms
    asleep(sleeper)
    wait_until(lambda: sleeper.wake_row() is None)
