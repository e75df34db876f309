# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests."""

import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))

from fleet import DOCKET, Fleet  # noqa: E402 the path comes first


def pytest_sessionstart(session):
    if not os.access(DOCKET, os.X_OK):
        pytest.exit(f"{DOCKET} is missing: make build", returncode=1)


def open_folder(**where):
    """A new folder that the fleet's user can reach, should the tests run as root."""
    folder = tempfile.mkdtemp(**where)
    os.chmod(folder, 0o755)
    return folder


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
