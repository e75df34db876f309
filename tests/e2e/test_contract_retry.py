# SPDX-License-Identifier: Apache-2.0
"""Idempotency: one request_id, one result; replay, joining in flight, conflict, refusals."""

import uuid

import pytest
from client import Client, calm, id_text, is_replay, new_id, refused


def test_replay_has_the_same_result(roomy):
    params = {"request_id": new_id(), "subject": "s", "payload": b"\x00\xff"}
    first = roomy.create("silver", **params)
    assert "replayed" not in first
    for _ in range(3):
        again = roomy.create("silver", **params)
        assert again["replayed"] is True
        del again["replayed"]
        # The promise is the deadline; the slot is where it is now.
        again["slot_start_ms"] = first["slot_start_ms"]
        assert again == first


@pytest.mark.parametrize("make", [new_id, lambda: uuid.uuid4().bytes, lambda: bytes(16),
                                  lambda: b"\xff" * 16])
def test_replay_any_uuid_both_forms(tenant, make):
    request_id = make()
    text = id_text(request_id)
    first = tenant.create(request_id=request_id)
    for form in (text, text.upper(), request_id):
        assert is_replay(tenant.create(request_id=form), first)
    second = tenant.create(request_id=id_text(new_id()))
    assert second["ticket_id"] != first["ticket_id"]


def test_replay_does_not_compare_token_budget_and_trace(roomy):
    request_id = new_id()
    first = roomy.create(request_id=request_id, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    again = roomy.create(
        request_id=request_id, token=roomy.login()["token"], budget_ms=9999,
        traceparent=f"00-{'c' * 32}-{'d' * 16}-01", unknown="x",
    )
    assert is_replay(again, first)


def test_nil_is_absent_and_empty_is_not(roomy):
    request_id = new_id()
    first = roomy.create(request_id=request_id)
    assert is_replay(roomy.create(request_id=request_id, subject=None, payload=None), first)
    with refused("conflict", "subject"):
        roomy.create(request_id=request_id, subject="")
    with refused("conflict", "payload"):
        roomy.create(request_id=request_id, payload=b"")


@pytest.mark.parametrize(
    "field, first, second",
    [
        ("ticket_type", {"ticket_type": "gold"}, {"ticket_type": "silver"}),
        ("subject", {"subject": "a"}, {"subject": "b"}),
        ("subject", {"subject": "a"}, {}),
        ("subject", {}, {"subject": "a"}),
        ("payload", {"payload": b"a"}, {"payload": b"b"}),
        ("payload", {"payload": b"a"}, {}),
        ("payload", {"payload": b"a" * 8192}, {"payload": b"a" * 8191 + b"b"}),
    ],
)
def test_conflict_names_the_field(roomy, field, first, second):
    request_id = new_id()
    made = roomy.create(**{"ticket_type": "gold", "request_id": request_id, **first})
    with refused("conflict", field):
        roomy.create(**{"ticket_type": "gold", "request_id": request_id, **second})
    # The first is untouched by it.
    again = roomy.create(**{"ticket_type": "gold", "request_id": request_id, **first})
    assert is_replay(again, made)


def test_conflict_of_method_and_slot(roomy, internal):
    client_id = roomy.client_id

    def hold():
        return internal.call("validate_eta", client_id=client_id, ticket_type="gold")["slot_id"]

    def allocate(slot_id, request_id):
        return internal.call("allocate_slot", client_id=client_id, ticket_type="gold",
                             slot_id=slot_id, request_id=request_id)

    request_id, slot_id, another = new_id(), hold(), hold()
    made = allocate(slot_id, request_id)
    with refused("conflict", "slot_id"):
        allocate(another, request_id)
    with refused("conflict", "method"):
        roomy.create(request_id=request_id)
    assert is_replay(allocate(slot_id, request_id), made)
    # The other way round; and the hold that was not used is still there.
    request_id = new_id()
    made = roomy.create(request_id=request_id)
    with refused("conflict", "method"):
        allocate(another, request_id)
    assert is_replay(roomy.create(request_id=request_id), made)
    assert allocate(another, new_id())["status"] == "created"


def test_conflict_in_one_message(tenant):
    """The two requests are decided in one group: only one wins, the other hears of the conflict."""
    request_id = new_id()
    params = {"request_id": request_id, "ticket_type": "gold"}
    answers = tenant.client.ask_all([
        ("create_ticket", tenant.with_defaults("create_ticket", {**params, "subject": subject}))
        for subject in ("a", "b", "a", "b")])
    created = [result for error, result in answers if result]
    conflicts = [error for error, result in answers if error]
    assert len(created) == len(conflicts) == 2
    assert {error["code"] for error in conflicts} == {"conflict"}
    assert {error["field"] for error in conflicts} == {"subject"}
    assert len({one["ticket_id"] for one in created}) == 1
    assert tenant.sql("select count(*) from tickets") == [(1,)]


def test_joined_in_flight(tenant):
    """The same request 100 times at once, over two connections: one ticket, 100 answers."""
    params = tenant.with_defaults("create_ticket", {"request_id": new_id(), "subject": "s"})
    with Client(tenant.fleet.public) as another:
        msgids = another.send_batch([("create_ticket", params)] * 50)
        answers = tenant.client.ask_all([("create_ticket", params)] * 50)
        answers += list(another.wait(msgids).values())
    assert not [error for error, _ in answers if error]
    results = [result for _, result in answers]
    assert len({result["ticket_id"] for result in results}) == 1
    assert len([result for result in results if "replayed" not in result]) == 1
    assert tenant.sql("select count(*) from tickets") == [(1,)]


def test_many_ids_each_three_times_in_any_order(tenant):
    params = [tenant.with_defaults("create_ticket", {"ticket_type": "bronze"})
              for _ in range(150)]
    answers = tenant.client.ask_all(
        [("create_ticket", one) for one in params + params[::-1] + params[::7] * 3])
    assert not [error for error, _ in answers if error]
    tickets = [result["ticket_id"] for _, result in answers]
    assert tickets[:150] == tickets[150:300][::-1]
    assert len(set(tickets)) == 150
    assert tenant.sql("select count(*), count(distinct request_id) from tickets") == [(150, 150)]


def test_request_ids_are_per_tenant(tenant, roomy):
    request_id = new_id()
    one, two = tenant.create(request_id=request_id), roomy.create(request_id=request_id)
    assert one["ticket_id"] != two["ticket_id"]
    assert "replayed" not in two
    with refused("conflict"):
        tenant.create("silver", request_id=request_id)


def test_replay_of_a_cancelled_or_resolved_ticket(roomy):
    for method in ("cancel_ticket", "resolve_ticket"):
        request_id = new_id()
        made = roomy.create(request_id=request_id)
        roomy.call(method, ticket_id=made["ticket_id"])
        again = roomy.create(request_id=request_id)
        assert (again["status"], again["ticket_id"]) == ("created", made["ticket_id"])
        assert again["replayed"] is True
        assert again["deadline_ms"] == made["deadline_ms"]


def test_replay_shows_where_the_slot_is_now(tenant):
    calm()
    request_id = new_id()
    bronze = tenant.create("bronze", request_id=request_id)
    tenant.create_many(118, "bronze")
    tenant.create_many(40, "gold")
    now = {row["ticket_id"]: row for row in tenant.tickets(limit=1000)}[bronze["ticket_id"]]
    again = tenant.create("bronze", request_id=request_id)
    assert again["slot_start_ms"] == now["slot_start_ms"]
    assert again["deadline_ms"] == bronze["deadline_ms"]


def test_errors_are_not_remembered(roomy):
    request_id = new_id()
    with refused("invalid_argument", "ticket_type"):
        roomy.create("platinum", request_id=request_id)
    with refused("invalid_argument", "subject"):
        roomy.create(request_id=request_id, subject="x" * 201)
    with refused("unauthenticated"):
        roomy.create(request_id=request_id, token=None)
    made = roomy.create(request_id=request_id, subject="another")
    assert made["status"] == "created" and "replayed" not in made


def test_suspended_is_not_remembered(tenant, internal):
    request_id = new_id()
    internal.call("set_tenant", client_id=tenant.client_id, suspended=True)
    with refused("suspended"):
        tenant.create(request_id=request_id)
    internal.call("set_tenant", client_id=tenant.client_id, suspended=False)
    assert "replayed" not in tenant.create(request_id=request_id)


def test_refusal_is_remembered(tenant):
    calm()
    made = tenant.create_many(119)
    request_id = new_id()
    first = tenant.create(request_id=request_id)
    assert first["status"] == "refused"
    tenant.call("cancel_ticket", ticket_id=made[50]["ticket_id"])
    assert tenant.create(request_id=request_id) == {**first, "replayed": True}
    with refused("conflict", "subject"):
        tenant.create(request_id=request_id, subject="other")
    assert tenant.create()["status"] == "created"


def test_refused_in_flight_is_joined(tenant):
    calm()
    tenant.create_many(119)
    params = tenant.with_defaults("create_ticket", {"request_id": new_id()})
    answers = tenant.client.ask_all([("create_ticket", params)] * 20)
    assert not [error for error, _ in answers if error]
    assert {result["status"] for _, result in answers} == {"refused"}
    assert len([result for _, result in answers if "replayed" not in result]) == 1
    assert tenant.sql("select count(*) from tickets") == [(119,)]
