# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests."""

import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from client import LEVELS, Client, Tenant, calm, own_source  # noqa: E402
from fleet import DOCKET, Fleet  # noqa: E402 the path comes first

QUICK_TEST_S = 3  # of tests that make a ticket and look at it
LOG_LINES_MAX = 15  # of each process, told with a failure


def pytest_sessionstart(session):
    if not os.access(DOCKET, os.X_OK):
        pytest.exit(f"{DOCKET} is missing: make build", returncode=1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """No test begins as a minute ends, nor its fixtures: what it books is dispatched before it
    has looked. What needs more room than that waits for it."""
    calm(QUICK_TEST_S)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """With a failure come the last words of every process of the fleets that run."""
    report = (yield).get_result()
    if report.failed:
        for fleet in [one for one in Fleet.started if os.path.exists(one.stderr_path)]:
            for name, text in fleet.logs().items():
                last = text.splitlines()[-LOG_LINES_MAX:]
                title = f"{name} of {fleet.data_folder}"
                report.sections.append((title, "\n".join(last)))


def open_folder(**where):
    """A new folder that the fleet's user can reach, should the tests run as root."""
    folder = tempfile.mkdtemp(**where)
    os.chmod(folder, 0o755)
    return folder


def discard(fleet):
    """Ends a fleet whose data nobody wants: an orderly stop would write its many databases down."""
    fleet.scan_logs()
    fleet.kill_everything()


@pytest.fixture(scope="session")
def session_folder():
    folder = open_folder(prefix="docket-e2e-")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def folder(session_folder):
    """A folder of the test's own."""
    own = open_folder(dir=session_folder)
    yield own
    shutil.rmtree(own, ignore_errors=True)


@pytest.fixture(scope="session")
def fleet(session_folder):
    """One broker and two workers for all tests that do no harm to them."""
    with Fleet(session_folder, data=os.path.join(session_folder, "shared")) as running:
        yield running
        discard(running)


@pytest.fixture
def new_fleet(folder):
    """Makes fleets of the test's own; each is closed and its logs are checked at the end."""
    made = []

    def make(**options):
        options.setdefault("data", os.path.join(folder, f"data-{len(made)}"))
        made.append(Fleet(folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


# -- tenants on the shared fleet -----------------------------------------------------------------


@pytest.fixture(scope="session")
def internal(fleet):
    """A service inside: a connection to the internal endpoint."""
    with Client(fleet.internal, keys=fleet.keys) as client:
        yield client


@pytest.fixture
def public(fleet):
    """A connection of the test's own, from an address of its own."""
    with Client(fleet.public, source=own_source()) as client:
        yield client


@pytest.fixture
def new_tenant(fleet):
    made = []

    def make(resolvers=None):
        made.append(Tenant(fleet, resolvers))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def tenant(new_tenant):
    """Fresh: nobody has asked it for anything."""
    return new_tenant()


@pytest.fixture(scope="session")
def roomy(fleet):
    """A tenant with room for everybody, for tests that leave its settings alone."""
    one = Tenant(fleet, resolvers=64)
    yield one
    one.close()


@pytest.fixture(scope="session")
def other(fleet):
    """Somebody else."""
    one = Tenant(fleet)
    yield one
    one.close()


@pytest.fixture(scope="session")
def early(fleet, internal):
    """Made early in the run, so that its minutes have come when the tests of time look at it."""
    one = Tenant(fleet)
    calm(5)
    internal.call("set_tenant", client_id=one.client_id, resolvers=2,
                  classes={"express": 2, **LEVELS})
    one.express = one.create("express")
    one.gold = one.create("gold")
    one.later = [one.create("gold") for _ in range(2)]
    yield one
    one.close()
