# SPDX-License-Identifier: Apache-2.0
"""What comes with time: dispatch, pulling forward, breach. The tickets were made early in the run
(fixture `early`), so the waiting is mostly over when these tests begin."""

from client import MINUTE_MS, now_ms, refused
from fleet import wait_until


def test_dispatched_when_its_minute_comes(early):
    def dispatched():
        ticket = early.ticket(early.gold["ticket_id"])
        return ticket if ticket["state"] == "dispatched" else None

    ticket = wait_until(dispatched, 70, 0.2)
    assert ticket["slot_start_ms"] <= early.gold["slot_start_ms"]
    # Committed in the last 2 s before its minute; a late one still inside it.
    assert (ticket["slot_start_ms"] - 2500 <= ticket["dispatched_ms"]
            < ticket["slot_start_ms"] + MINUTE_MS)
    assert ticket["deadline_ms"] == early.gold["deadline_ms"]
    assert early.gold["ticket_id"] in {
        row["ticket_id"] for row in early.tickets(state="dispatched")}
    assert early.gold["ticket_id"] not in {row["ticket_id"] for row in early.tickets(state="open")}


def test_pulled_forward_so_that_no_resolver_idles(early):
    """Four tickets, two resolvers: within two minutes all are out, two in each."""
    def slots():
        rows = [row for row in early.tickets() if row["state"] == "dispatched"]
        return rows if len(rows) == 4 else None

    rows = wait_until(slots, 130, 0.5)
    by_minute = {}
    for row in rows:
        by_minute[row["slot_start_ms"]] = by_minute.get(row["slot_start_ms"], 0) + 1
    assert sorted(by_minute.values()) == [2, 2]
    starts = sorted(by_minute)
    assert starts == [starts[0] + at * MINUTE_MS for at in range(2)]


def test_dispatched_is_too_late_to_cancel(early):
    wait_until(lambda: early.ticket(early.gold["ticket_id"])["state"] == "dispatched", 70, 0.2)
    for _ in range(2):
        assert early.call("cancel_ticket", ticket_id=early.gold["ticket_id"]) == {
            "status": "too_late"}


def test_breached_when_the_deadline_passes(early):
    """The class of two minutes; nobody resolved it."""
    def breached():
        ticket = early.ticket(early.express["ticket_id"])
        return ticket if ticket["breached"] else None

    ticket = wait_until(breached, 200, 0.5)
    assert now_ms() >= ticket["deadline_ms"] - 1000
    assert (ticket["state"], ticket["at_risk"]) == ("dispatched", False)
    for _ in range(2):
        assert early.call("resolve_ticket", ticket_id=early.express["ticket_id"]) == {
            "status": "resolved", "met": False}
    ticket = early.ticket(early.express["ticket_id"])
    assert (ticket["state"], ticket["breached"]) == ("resolved", True)


def test_resolved_after_dispatch(early):
    wait_until(lambda: early.ticket(early.gold["ticket_id"])["state"] == "dispatched", 70, 0.2)
    for _ in range(2):
        assert early.call("resolve_ticket", ticket_id=early.gold["ticket_id"]) == {
            "status": "resolved", "met": True}
    ticket = early.ticket(early.gold["ticket_id"])
    assert ticket["state"] == "resolved"
    assert ticket["dispatched_ms"] <= ticket["resolved_ms"]
    assert early.call("cancel_ticket", ticket_id=early.gold["ticket_id"]) == {"status": "too_late"}
    with refused("not_found"):
        early.call("resolve_ticket", ticket_id="tk_x")
