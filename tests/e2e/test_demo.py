# SPDX-License-Identifier: Apache-2.0
"""`docket demo`: all is proved on a real fleet, and a broken promise is noticed."""

import glob
import os
import signal
import subprocess
import tempfile
import time

import pytest

from fleet import DOCKET, wait_until

FAKE = os.path.join(os.path.dirname(__file__), "fake_fleet.py")
BOUND_S = 180
CHECKS = 9


def run_demo(*args, **env):
    return subprocess.run(
        [DOCKET, "demo", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        env={**os.environ, **env},
        check=False,
    )


def lines(done, word):
    return [line for line in done.stdout.splitlines() if line.strip().startswith(word)]


def test_demo_once_proves_everything():
    done = run_demo("--once", "--seconds", "8", "--companies", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(lines(done, "PASS")) == CHECKS
    assert not lines(done, "FAIL")
    assert "All proved." in done.stdout
    assert " e.g. " in done.stdout, "no company ran into a refusal"


def test_demo_interrupted_stops_the_fleet(folder):
    data = os.path.join(folder, "data")
    with tempfile.TemporaryFile("w+", dir=folder) as out:
        demo = subprocess.Popen(
            [DOCKET, "demo", "--seconds", "60", "--companies", "2", "--data", data],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )

        def said():
            out.seek(0)
            return out.read()

        try:
            wait_until(lambda: "companies log in" in said() or demo.poll() is not None, BOUND_S)
            assert demo.poll() is None, said()
            demo.send_signal(signal.SIGINT)
            assert demo.wait(30) == 1, said()
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait(30)
    for path in glob.glob(os.path.join(data, "run", "*.pid")):
        with open(path, encoding="ascii") as stream:
            assert not os.path.exists(f"/proc/{stream.read().strip()}"), path


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("double", "no minute of a resolver is booked twice"),
        ("lose", "every acknowledged ticket is in its company's own database"),
        ("cancel", "every cancelled ticket is cancelled, and nothing else is"),
        ("late", "every booked minute ends by its ticket's deadline"),
        ("twice", "one ticket per request_id"),
        ("ghost", "no ticket that nobody asked for"),
    ],
)
def test_demo_notices_a_broken_promise(fault, check):
    done = run_demo(
        "--once", "--seconds", "3", "--companies", "4", DOCKET_BIN=FAKE, FAKE_FAULT=fault
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT proved." in done.stdout
    assert any(check in line for line in lines(done, "FAIL")), done.stdout


def test_demo_fleet_that_does_not_start_is_told():
    begin = time.monotonic()
    done = run_demo("--once", DOCKET_BIN="/bin/false")
    assert done.returncode == 1
    assert "did not come up" in done.stdout
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize("args", [["--seconds", "0"], ["--companies", "x"], ["--nonsense"]])
def test_demo_wrong_use(args):
    assert run_demo(*args).returncode == 2
