# SPDX-License-Identifier: Apache-2.0
"""No tenant reaches another: its tokens, its ids, its database role."""

import time

import psycopg2
import pytest
from client import new_id, refused, role_password


@pytest.fixture(scope="module")
def pair(fleet, internal):
    """Two companies, each with a ticket and a hold."""
    from client import Tenant

    made = []
    for _ in range(2):
        one = Tenant(fleet)
        one.made = one.create("bronze", subject=f"secret of {one.client_id}", payload=b"secret")
        one.held = internal.call("validate_eta", client_id=one.client_id, ticket_type="bronze",
                                 hold_ms=300000)
        made.append(one)
    yield made
    for one in made:
        one.close()


def both_ways(pair):
    return (pair, pair[::-1])


def test_anothers_client_id(pair):
    for mine, theirs in both_ways(pair):
        for method, params in (
            ("create_ticket", {"request_id": new_id(), "ticket_type": "gold"}),
            ("list_tickets", {}), ("availability", {}), ("logout", {}),
            ("change_password", {"password": "correct horse battery",
                                 "new_password": "a new password"}),
        ):
            with refused("permission_denied"):
                mine.call(method, client_id=theirs.client_id, **params)
        assert theirs.call("availability")["status"] == "ok"
        assert theirs.login()["status"] == "ok"


def test_anothers_ticket_id(pair):
    """As if it did not exist: the same answer in every byte."""
    for mine, theirs in both_ways(pair):
        for method in ("get_ticket", "cancel_ticket", "resolve_ticket"):
            error, _ = mine.ask(method, ticket_id=theirs.made["ticket_id"])
            unknown, _ = mine.ask(method, ticket_id="tk_" + "A" * 39)
            assert error["code"] == "not_found"
            assert error == unknown
        # untouched; a minute may have passed since it was made
        assert theirs.ticket(theirs.made["ticket_id"])["state"] in ("open", "dispatched")


def test_anothers_slot_id(pair, internal):
    for mine, theirs in both_ways(pair):
        for slot_id in (theirs.held["slot_id"], theirs.made["slot_id"]):
            with refused("not_found"):
                internal.call("allocate_slot", client_id=mine.client_id, ticket_type="bronze",
                              slot_id=slot_id, request_id=new_id())
    for one in pair:
        assert internal.call(
            "allocate_slot", client_id=one.client_id, ticket_type="bronze",
            slot_id=one.held["slot_id"], request_id=new_id())["status"] in ("created", "taken")


def test_anothers_request_id_finds_nothing(pair):
    mine, theirs = pair
    request_id = new_id()
    theirs.create("bronze", request_id=request_id, subject="secret")
    made = mine.create("bronze", request_id=request_id, subject="mine")
    assert "replayed" not in made


def test_lists_hold_own_tickets_only(pair):
    for mine, theirs in both_ways(pair):
        assert theirs.client_id not in str(mine.tickets())
        assert theirs.made["ticket_id"] not in {row["ticket_id"] for row in mine.tickets()}


def test_no_character_of_a_ticket_id_can_be_changed(roomy):
    """A forged id is nobody's, whichever part of it was changed: prefix, tenant, number or tag."""
    ticket_id = roomy.create("bronze")["ticket_id"]
    requests, where = [], []
    for at, was in enumerate(ticket_id):
        for new in "A_z0":
            if new != was:
                forged = ticket_id[:at] + new + ticket_id[at + 1 :]
                where.append(forged)
                requests.append(("cancel_ticket", {"token": roomy.token, "ticket_id": forged}))
    for forged, (error, _) in zip(where, roomy.client.ask_all(requests)):
        assert error and error["code"] == "not_found", forged
    assert roomy.ticket(ticket_id)["state"] == "open"


def test_no_character_of_a_client_id_can_be_changed(roomy, internal):
    client_id = roomy.client_id
    forged = [client_id[:at] + ("A" if was != "A" else "B") + client_id[at + 1 :]
              for at, was in enumerate(client_id)]
    answers = roomy.client.ask_all(
        [("availability", {"token": roomy.token, "client_id": one}) for one in forged])
    assert {error["code"] for error, _ in answers} == {"permission_denied"}
    answers = internal.ask_all([("get_tenant", {"client_id": one}) for one in forged])
    assert {error["code"] for error, _ in answers} == {"not_found"}
    answers = internal.ask_all(
        [("create_ticket", {"client_id": one, "request_id": new_id(), "ticket_type": "gold"})
         for one in forged])
    assert {error["code"] for error, _ in answers} == {"not_found"}


def connect(fleet, role, database, password):
    """A role may have few sessions, and one that was closed takes a moment to end."""
    end = time.monotonic() + 10
    while True:
        try:
            return psycopg2.connect(
                host="127.0.0.1", port=fleet.port + 3, user=role, dbname=database,
                password=password, connect_timeout=5, passfile="/dev/null")
        except psycopg2.OperationalError as err:
            if "too many connections" not in str(err) or time.monotonic() >= end:
                raise
            time.sleep(0.02)


def test_database_roles_reach_their_own_database_only(fleet, pair):
    databases = [one.database for one in pair]
    foreign = ["postgres", "template1", "docket_control", "docket_template"]
    for own, theirs in (databases, databases[::-1]):
        password = role_password(fleet.keys, own)
        connection = connect(fleet, own, own, password)
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from tickets")
            assert cursor.fetchone()[0] >= 1
            cursor.execute("select rolsuper, rolcreatedb, rolcreaterole, rolreplication,"
                           " rolbypassrls from pg_roles where rolname = current_user")
            assert cursor.fetchone() == (False,) * 5
        connection.close()
        for database in [theirs, *foreign]:
            with pytest.raises(psycopg2.OperationalError, match="permission denied|not currently"):
                connect(fleet, own, database, password)
        with pytest.raises(psycopg2.OperationalError, match="password"):
            connect(fleet, theirs, theirs, password)


def test_database_passwords_are_not_iterated(fleet, pair):
    """They are 256 random bits: iterations would cost each activation and protect nothing. Roles
    that were made when there were 4,096 are let in as before."""
    assert fleet.sql(
        "select bool_and(rolpassword like 'SCRAM-SHA-256$1:%'), count(*) >= 2 from pg_authid"
        " where rolname ~ '^t_[0-9a-f]{32}$'") == [(True, True)]
    database = pair[0].database
    password = role_password(fleet.keys, database)
    before = fleet.sql("select rolpassword from pg_authid where rolname = %s", (database,))[0][0]
    fleet.sql(f"alter role {database} password '{password}'")
    assert fleet.sql("select 1 from pg_authid where rolname = %s"
                     " and rolpassword like 'SCRAM-SHA-256$4096:%%'", (database,))
    connect(fleet, database, database, password).close()
    fleet.sql(f"alter role {database} password '{before}'")
    connect(fleet, database, database, password).close()


def test_database_every_role_by_the_catalogue(fleet, pair):
    """All pairs at once, the ready-made databases of the pool too."""
    assert fleet.sql(
        "select r.rolname, d.datname from pg_roles r, pg_database d"
        " where r.rolname ~ '^t_[0-9a-f]{32}$' and r.rolname <> d.datname and d.datallowconn"
        " and has_database_privilege(r.rolname, d.datname, 'connect')") == []
    assert fleet.sql(
        "select count(*) >= 2 from pg_roles r join pg_database d on r.rolname = d.datname"
        " where has_database_privilege(r.rolname, d.datname, 'connect')"
        " and r.rolname ~ '^t_'") == [(True,)]


def test_database_role_cannot_change_what_is_not_its_own(fleet, pair):
    database = pair[0].database
    connection = connect(fleet, database, database, role_password(fleet.keys, database))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in (
            "create table mine (x int)", "drop table tickets", "truncate journal",
            "update journal set epoch = 0", "delete from account",
            "create role friend", "alter system set fsync = off", "create database mine",
            "copy tickets to program 'cat'", "select pg_read_file('/etc/passwd')",
            "select lo_import('/etc/passwd')",
        ):
            with pytest.raises(psycopg2.Error):
                cursor.execute(statement)
    connection.close()
