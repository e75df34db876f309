#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions per request, counted by valgrind and compared with tests/bench/instructions.json.

    count.py PROGRAM                  count everything and judge; exit 1 if a figure moved
    count.py PROGRAM --update         count everything and record it: a deliberate act
    count.py PROGRAM --only NAME..    these scenarios, and the ratios between them
    count.py PROGRAM --profile NAME   where the instructions of one scenario go

A figure fails when it grows beyond its margin and also when it shrinks below it: a gain is recorded
on purpose, so that the next loss is seen against it. The ratios between scenarios are judged too;
they say that costs do not grow with what a tenant or a worker holds.

The figures belong to one compiler and one processor family. Under another one they are printed and
not judged; the ratios always are.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "instructions.json")
TIMEOUT_S = 240
JOBS = 2
# libc picks its memcpy by the processor: with these it picks the same one everywhere.
TUNABLES = (
    "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,"
    "-EVEX,-RTM,-BMI2,-BMI1,-LZCNT,-MOVBE,-SSE4_2,-SSE4_1,-SSSE3"
)
HOPS = [
    ("chain_send", "broker: client frame in"),
    ("chain_broker_out", "broker: link message out"),
    ("chain_node_in", "worker: link message in, to the actor"),
    ("chain_actors", "actor: decide, commit, answer"),
    ("chain_node_out", "worker: link message out"),
    ("chain_broker_in", "broker: link message in, client frame out"),
]


def scenarios(program):
    """{name: requests counted}, in the program's order."""
    out = subprocess.run([program, "--list"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return {name: int(count) for name, count in (line.split("\t") for line in out.splitlines())}


def run_valgrind(program, name, folder, number):
    """Callgrind's dump of that scenario."""
    env = dict(os.environ, GLIBC_TUNABLES=TUNABLES, LC_ALL="C")
    base = os.path.join(folder, f"out{number}")
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
    command += [f"--callgrind-out-file={base}", program, name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    with open(base + ".1", encoding="utf-8", errors="replace") as stream:
        return stream.read()


def count(program, wanted):
    """{name: instructions per request}; a process each, so that none sees what another left."""
    def one(item):
        number, (name, requests) = item
        text = run_valgrind(program, name, folder, number)
        return name, int(re.search(r"^totals: (\d+)", text, re.M).group(1)) / requests

    with tempfile.TemporaryDirectory(prefix="docket-count-") as folder:
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            return dict(pool.map(one, enumerate(wanted.items())))


def machine():
    compiler = subprocess.run(["cc", "--version"], stdout=subprocess.PIPE, check=True, text=True)
    return f"{os.uname().machine}, {compiler.stdout.splitlines()[0]}"


def judge_figures(record, now, known):
    """Prints the table; the number of figures that moved."""
    ours = record["machine"] == machine()
    moved = 0
    print(f"{'scenario':32} {'recorded':>10} {'now':>10} {'change':>8}  margin")
    for name, figure in now.items():
        row = record["figures"].get(name)
        if row is None:
            print(f"{name:32} {'-':>10} {figure:10.0f} {'-':>8}  not recorded")
            moved += 1
            continue
        margin = row.get("margin_percent", record["margin_percent"])
        change = 100 * (figure / row["instructions"] - 1)
        wrong = abs(change) > margin
        word = "GREW" if change > 0 else "SHRANK: record the gain"
        print(f"{name:32} {row['instructions']:10.0f} {figure:10.0f} {change:+7.2f}%  {margin} %"
              + (f"  {word}" if wrong else ""))
        moved += wrong
    for name in record["figures"].keys() - known:
        print(f"{name:32} recorded, but there is no such scenario")
        moved += 1
    if not ours:
        print(f"recorded with {record['machine']}; this is {machine()}: figures are not judged")
        return 0
    return moved


def judge_ratios(record, now):
    """Prints each ratio with its bound; the number of those above it."""
    above = 0
    print(f"\n{'ratio':58} {'now':>6}  {'at most':>7}")
    for ratio in record["ratios"]:
        if ratio["of"] not in now or ratio["to"] not in now:
            continue
        value = now[ratio["of"]] / now[ratio["to"]]
        wrong = value > ratio["at_most"]
        print(f"{ratio['of'] + ' : ' + ratio['to']:58} {value:6.3f}  {ratio['at_most']:7.2f}"
              + (f"  ABOVE ({ratio['why']})" if wrong else ""))
        above += wrong
    return above


def update(record, now, known):
    figures = {name: row for name, row in record["figures"].items() if name in known}
    for name, figure in now.items():
        row = dict(record["figures"].get(name, {}))
        row["instructions"] = round(figure)
        figures[name] = row
    record["figures"] = figures
    record["machine"] = machine()
    with open(RECORD, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=2)
        stream.write("\n")


def read_functions(text):
    """Of a dump: {function: own instructions} and {hop: instructions with all that it calls}."""
    names, own, hops = {}, collections.Counter(), collections.Counter()
    function, callee = "", None
    for line in text.splitlines():
        match = re.match(r"^(c?fn)=\((\d+)\)(?: (.*))?$", line)
        if match:
            kind, number, name = match.groups()
            if name:
                names[number] = name
            if kind == "fn":
                function = names[number]
            else:
                callee = names[number]
        elif line.startswith("calls="):
            continue
        elif re.match(r"^[+\-*\d]\S* \d+$", line):
            cost = int(line.split()[1])
            if callee is None:
                own[function] += cost
            elif function.split("'")[0] == "s_drive":
                hops[callee.split("'")[0]] += cost
            callee = None
    return own, hops


def profile(program, name, requests):
    with tempfile.TemporaryDirectory(prefix="docket-count-") as folder:
        text = run_valgrind(program, name, folder, 0)
    own, hops = read_functions(text)
    total = sum(own.values())
    print(f"{name}: {total / requests:.0f} instructions per request\n")
    for function, what in HOPS:
        print(f"{hops[function] / requests:9.0f} {100 * hops[function] / total:5.1f} %  {what}")
    print()
    for function, cost in own.most_common(40):
        print(f"{cost / requests:9.0f} {100 * cost / total:5.1f} %  {function}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--update", action="store_true", help="record what is counted")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="count these scenarios")
    parser.add_argument("--profile", metavar="NAME", help="one scenario's functions")
    arguments = parser.parse_args()
    wanted = scenarios(arguments.program)
    known = set(wanted)
    for name in [*(arguments.only or []), *filter(None, [arguments.profile])]:
        if name not in known:
            sys.exit(f"no scenario {name}; there are: {', '.join(wanted)}")
    if arguments.profile:
        profile(arguments.program, arguments.profile, wanted[arguments.profile])
        return 0
    with open(RECORD, encoding="utf-8") as stream:
        record = json.load(stream)
    if arguments.only:
        wanted = {name: wanted[name] for name in arguments.only}
    now = count(arguments.program, wanted)
    if arguments.update:
        update(record, now, known)
    bad = judge_figures(record, now, known) + judge_ratios(record, now)
    if bad:
        print(f"\n{bad} out of bounds. If that is meant: tests/bench/count.py "
              f"{arguments.program} --update, and say why in the commit.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
