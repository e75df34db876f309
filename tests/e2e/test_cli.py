# SPDX-License-Identifier: Apache-2.0
"""The commands account, ticket and tenant against a running fleet: what they print, what they
exit with, and that secrets need not stand on the command line."""

import json
import os
import subprocess
import uuid

import pytest

from client import calm
from fleet import DOCKET, wait_until

PASSWORD = "a long enough password"
BOUND_S = 60


class Cli:
    """Runs `docket` with the endpoints of a fleet."""

    def __init__(self, fleet):
        self.env = {
            **os.environ,
            "DOCKET_ENDPOINT": fleet.public,
            "DOCKET_INTERNAL": fleet.internal,
            "DOCKET_KEYS": fleet.keys,
            "DOCKET_PASSWORD": PASSWORD,
        }

    def run(self, *args, **env):
        return subprocess.run(
            [DOCKET, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            env={**self.env, **env},
            check=False,
        )

    def json(self, *args, status=0, **env):
        done = self.run(*args, "--json", **env)
        assert done.returncode == status, (args, done.stdout, done.stderr)
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout)

    def account(self, resolvers=1):
        """Opens an account, logs in; the ids are then defaults of this object."""
        email = f"{uuid.uuid4().hex}@example.com"
        created = self.json(
            "account", "create", "--name", "Acme", "--email", email, "--resolvers", str(resolvers)
        )
        assert created["status"] == "created"
        self.env["DOCKET_CLIENT"] = created["client_id"]
        self.env["DOCKET_TOKEN"] = self.json("account", "login")["token"]
        return created["client_id"]


@pytest.fixture
def cli(fleet):
    return Cli(fleet)


@pytest.fixture
def company(fleet):
    one = Cli(fleet)
    one.account()
    return one


def test_cli_account_from_creation_to_logout(cli):
    client = cli.account(resolvers=2)
    assert client.startswith("cl_")
    assert cli.run("ticket", "list").returncode == 0
    assert "dead" in cli.run("account", "logout").stdout
    done = cli.run("ticket", "list")
    assert done.returncode == 1
    assert "unauthenticated" in done.stderr


def test_cli_password_from_a_file_and_a_wrong_one(company, folder):
    path = os.path.join(folder, "password")
    with open(path, "w", encoding="utf-8") as out:
        out.write(PASSWORD + "\n")
    company.env["DOCKET_PASSWORD"] = "not this one, is it"
    wrong = company.json("account", "login", status=1)
    assert wrong["error"]["code"] == "unauthenticated"
    assert company.json("account", "login", "--password-file", path)["status"] == "ok"


def test_cli_password_change_kills_tokens(company):
    done = company.run("account", "password", DOCKET_NEW_PASSWORD="another long password")
    assert done.returncode == 0, done.stderr
    assert company.run("ticket", "list").returncode == 1
    assert company.json("account", "login", "--password", "another long password")["token"]


def test_cli_without_a_password_is_wrong_use(cli):
    del cli.env["DOCKET_PASSWORD"]
    done = cli.run("account", "login", "cl_AAAAAAAAAAAAAAAA")
    assert done.returncode == 2
    assert "password" in done.stderr


def test_cli_ticket_from_creation_to_cancel(company):
    calm(5)
    # One resolver works on these first, so that the next one is not dispatched meanwhile.
    before = [company.json("ticket", "create", "gold")["ticket_id"] for _ in range(3)]
    created = company.json("ticket", "create", "gold", "--subject", "printer on fire")
    assert created["status"] == "created"
    assert created["slot_start_ms"] + 60000 <= created["deadline_ms"]
    ticket = company.json("ticket", "get", created["ticket_id"])["ticket"]
    assert (ticket["state"], ticket["ticket_type"]) == ("open", "gold")
    assert ticket["subject"] == "printer on fire"
    listed = [row["ticket_id"] for row in company.json("ticket", "list")["tickets"]]
    assert listed == [*before, created["ticket_id"]]
    still_open = company.json("ticket", "list", "--state", "open")["tickets"]
    assert created["ticket_id"] in [row["ticket_id"] for row in still_open]
    assert company.run("ticket", "cancel", created["ticket_id"]).stdout == "cancelled\n"
    assert company.run("ticket", "cancel", created["ticket_id"]).returncode == 0
    assert company.run("ticket", "resolve", created["ticket_id"]).returncode == 1


def test_cli_ticket_for_people(company):
    done = company.run("ticket", "create", "--type", "silver")
    assert done.returncode == 0
    assert "resolved by" in done.stdout and "planned for" in done.stdout
    ticket_id = done.stdout.split()[1]
    assert "silver" in company.run("ticket", "get", ticket_id).stdout
    assert ticket_id in company.run("ticket", "list").stdout
    assert "the promise was kept" in company.run("ticket", "resolve", ticket_id).stdout
    assert "gold" in company.run("ticket", "available").stdout


def test_cli_same_request_id_same_ticket(company):
    request_id = str(uuid.uuid4())
    first = company.json("ticket", "create", "gold", "--request-id", request_id)
    again = company.json("ticket", "create", "gold", "--request-id", request_id)
    assert again["ticket_id"] == first["ticket_id"]
    assert again["replayed"] is True


def test_cli_refusal_says_why_and_exits_1(company):
    def refused():
        done = company.run("ticket", "create", "gold")
        return done if done.returncode != 0 else None

    wait_until(refused, 3 * BOUND_S, 0)  # 120 processes
    calm(5)  # the minute that begins has room for one more
    done = wait_until(refused, BOUND_S, 0)
    assert done.returncode == 1
    assert "refused: no_slot" in done.stdout
    assert "ask again from" in done.stdout
    assert "would fit now: bronze" in done.stdout
    assert company.json("ticket", "create", "gold", status=1)["status"] == "refused"


def test_cli_unknown_class_names_the_field(company):
    error = company.json("ticket", "create", "platinum", status=1)["error"]
    assert (error["code"], error["field"]) == ("invalid_argument", "ticket_type")


def test_cli_hold_allocate_release(company):
    held = company.json("ticket", "hold", "gold", "--hold-ms", "20000")
    assert held["status"] == "held"
    created = company.json("ticket", "allocate", "gold", held["slot_id"])
    assert created["status"] == "created"
    other = company.json("ticket", "hold", "gold")
    assert company.run("ticket", "release", other["slot_id"]).stdout == "released\n"


def test_cli_tenant_settings(company):
    client = company.env["DOCKET_CLIENT"]
    assert "resolvers" in company.run("tenant", "get", client).stdout
    assert company.run("tenant", "set", client, "--resolvers", "3").returncode == 0
    # The control database has a copy, which may come a moment later.
    wait_until(lambda: company.json("tenant", "get", client)["resolvers"] == 3)
    assert company.run("tenant", "suspend", client).returncode == 0
    assert company.json("ticket", "create", "gold", status=1)["error"]["code"] == "suspended"
    assert company.run("tenant", "resume", client).returncode == 0
    assert company.json("ticket", "create", "gold")["status"] == "created"
    assert client in company.run("tenant", "list", "--limit", "1000").stdout


def test_cli_silence_is_told(cli):
    done = cli.run("account", "login", "cl_AAAAAAAAAAAAAAAA", "--endpoint", "tcp://127.0.0.1:1",
                   "--timeout", "300")
    assert done.returncode == 1
    assert "silence" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["account"],
        ["ticket", "nonsense"],
        ["ticket", "create", "--nonsense", "1"],
        ["ticket", "create"],
        ["ticket", "get", "tk_1", "too many"],
        ["ticket", "create", "gold", "--request-id", "x"],
        ["ticket", "list", "--limit", "many"],
        ["tenant", "set", "cl_1", "--classes", "gold"],
        ["tenant", "set", "cl_1", "--rebooking", "perhaps"],
        ["ticket", "list", "--limit"],
    ],
)
def test_cli_wrong_use_exits_2(cli, args):
    done = cli.run(*args, DOCKET_CLIENT="cl_AAAAAAAAAAAAAAAA")
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr


@pytest.mark.parametrize(
    "args",
    [[noun, verb] for noun, verbs in {
        "account": ["create", "login", "logout", "password"],
        "ticket": ["create", "cancel", "get", "list", "resolve", "hold", "allocate", "release"],
        "tenant": ["get", "set", "list", "suspend", "resume"],
    }.items() for verb in verbs] + [["demo"]] + [["bench", name] for name in (
        "all", *[f"p{number}" for number in range(1, 11)],
        "policy", "ledger", "load", "chain", "plpgsql", "redis")],
)
def test_cli_every_command_has_help(cli, args):
    done = cli.run(*args, "--help")
    assert done.returncode == 0
    assert "usage: docket " + " ".join(args) in done.stdout
    assert not done.stderr


def test_cli_bench_load_counts(cli, folder):
    svg = os.path.join(folder, "load.svg")
    result = cli.json("bench", "load", "--seconds", "2", "--in-flight", "50", "--svg", svg)
    assert result["created"] > 0 and result["errors"] == 0
    assert result["p50_us"] <= result["p99_us"] <= result["p999_us"] <= result["max_us"]
    with open(svg, encoding="utf-8") as stream:
        assert "polyline" in stream.read()
