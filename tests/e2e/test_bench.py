# SPDX-License-Identifier: Apache-2.0
"""`docket bench`: every scenario works and tells numbers, and nothing outlives it.

No figure is judged here: a busy machine is no reason for a test to fail.
"""

import glob
import json
import math
import os
import signal
import subprocess
import uuid
import xml.etree.ElementTree

import pytest

from fleet import DOCKET, wait_until

BOUND_S = 400
SCENARIOS = [f"P{number}" for number in range(1, 11)]
MARK = "DOCKET_BENCH_TEST"


class Bench:
    """Runs with a temporary folder of their own, and a mark by which their processes are found."""

    def __init__(self, folder):
        self.temp = os.path.join(folder, "tmp")
        os.mkdir(self.temp, 0o755)
        os.chmod(self.temp, 0o755)
        self.mark = f"{MARK}={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.env = {**os.environ, "TMPDIR": self.temp, name: value}

    def start(self, *args, **env):
        return subprocess.Popen(
            [DOCKET, "bench", *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.env, **env},
        )

    def run(self, *args, **env):
        bench = self.start(*args, **env)
        try:
            out, err = bench.communicate(timeout=BOUND_S)
        finally:
            end(bench)
        return bench.returncode, out, err

    def is_ours(self, folder):
        """By the mark, or by its folder: Redis writes its title over its environment."""
        with open(os.path.join(folder, "environ"), "rb") as stream:
            marked = self.mark.encode() in stream.read().split(b"\0")
        return marked or os.readlink(os.path.join(folder, "cwd")).startswith(self.temp)

    def processes(self):
        """Command lines of everything that was started here and still runs."""
        found = []
        for folder in glob.glob("/proc/[0-9]*"):
            try:
                if self.is_ours(folder):
                    with open(os.path.join(folder, "cmdline"), "rb") as stream:
                        found.append(stream.read().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def assert_nothing_left(self):
        wait_until(lambda: not self.processes(), 20)
        assert os.listdir(self.temp) == []


def end(bench):
    """It ends what it started; only it is ended here."""
    if bench.poll() is None:
        bench.terminate()
        bench.wait(60)


@pytest.fixture
def bench(folder):
    return Bench(folder)


def numbers(scenario):
    for figure in scenario["figures"]:
        yield figure["median"]
        yield from figure["rounds"]
    for goal in scenario["goals"]:
        yield goal["value"]
        yield goal["goal"]


def assert_complete(result):
    assert [one["id"] for one in result["scenarios"]] == SCENARIOS
    for scenario in result["scenarios"]:
        assert scenario["ran"] and not scenario["error"], scenario
        assert scenario["figures"] and scenario["goals"], scenario
        for number in numbers(scenario):
            assert math.isfinite(number) and number >= 0, scenario
        assert any(number > 0 for number in numbers(scenario)), scenario
        assert all(check["ok"] for check in scenario["checks"]), scenario
    assert result["settings"]["fsync"] == result["settings"]["synchronous_commit"] == "on"
    assert result["settings"]["appendfsync"] == "always"
    assert result["machine"]["cores"] >= 1 and result["machine"]["fdatasync_ms"] > 0


def test_bench_runs_every_scenario(bench, folder):
    out_folder = os.path.join(folder, "out")
    status, out, err = bench.run("--quick", "--json", "--out", out_folder)
    assert status == 0, out + err
    result = json.loads(out)
    assert_complete(result)
    rows = [check for check in result["scenarios"][0]["checks"] if "is a row" in check["name"]]
    assert rows and not any(check["detail"].startswith("0 tickets") for check in rows)
    with open(os.path.join(out_folder, "bench.json"), encoding="utf-8") as stream:
        assert json.load(stream) == result
    with open(os.path.join(out_folder, "bench.txt"), encoding="utf-8") as stream:
        text = stream.read()
    goals = sum(len(one["goals"]) for one in result["scenarios"])
    assert text.count(": met\n") + text.count(": MISSED\n") == goals
    svg = xml.etree.ElementTree.parse(os.path.join(out_folder, "bench.svg")).getroot()
    assert len([node for node in svg.iter() if node.tag.endswith("rect")]) == goals + 1
    assert all(f"] {name} " in err for name in SCENARIOS), err
    bench.assert_nothing_left()


def test_bench_interrupted_leaves_nothing(bench):
    running = bench.start("p2", "--quick", "--rounds", "15")
    try:
        wait_until(lambda: any("redis-server" in line for line in bench.processes()) or
                   running.poll() is not None, BOUND_S)
        assert running.poll() is None, running.communicate()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "stopped" in err
    finally:
        end(running)
    bench.assert_nothing_left()


def test_bench_without_a_fleet_fails_and_says_so(bench):
    status, out, err = bench.run("p3", "--quick", "--json", DOCKET_BIN="/bin/false")
    assert status == 1
    (scenario,) = json.loads(out)["scenarios"]
    assert scenario["id"] == "P3" and not scenario["ran"]
    assert "did not come up" in scenario["error"] and "FAILED" in err
    bench.assert_nothing_left()


def test_bench_one_scenario_alone(bench):
    status, out, err = bench.run("p7", "--quick")
    assert status == 0, out + err
    assert "P7" in out and "P1 " not in out and "goals met" in out
    bench.assert_nothing_left()


@pytest.mark.parametrize("args", [["--rounds", "0"], ["p11"], ["--nonsense"], ["p7", "--rounds"],
                                  ["p7", "p77"]])
def test_bench_wrong_use(bench, args):
    status, out, err = bench.run(*args)
    assert status == 2 and err and not out
