#!/usr/bin/env python3
"""Run programs in turn, several rounds, and compare the rates that each prints in its last line of JSON.

Machines are noisy, so figures are compared only within one such run: the medians of all rounds, with the
lowest and highest, and the machine's load. A rate is the key `samples_per_s` or `median`.

usage: compare.py [--rounds 5] [--json FILE] NAME='COMMAND'...
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


def rate(text):
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            row = json.loads(line)
            return row, float(row.get("samples_per_s", row.get("median")))
    raise SystemExit("no line of JSON with a rate in:\n" + text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="write every line that was read")
    parser.add_argument("programs", nargs="+", metavar="NAME=COMMAND")
    args = parser.parse_args()
    programs = [program.split("=", 1) for program in args.programs]
    rates, rows = {name: [] for name, _ in programs}, []
    for round_ in range(args.rounds):
        for name, command in programs:
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name}: exit status {done.returncode}\n{done.stderr[-2000:]}")
            row, found = rate(done.stdout)
            rates[name].append(found)
            rows.append({"name": name, "round": round_, "load": os.getloadavg()[0], **row})
            print(f"{round_ + 1} {name} {found:,.0f}/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    if args.json:
        with open(args.json, "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
    first = statistics.median(rates[programs[0][0]])
    print("| program | samples/s, median | lowest to highest | first row is |")
    print("|---|---|---|---|")
    for name, _ in programs:
        median = statistics.median(rates[name])
        print(f"| {name} | {median:,.0f} | {min(rates[name]):,.0f} to {max(rates[name]):,.0f} | {first / median:.1f}× |")


if __name__ == "__main__":
    main()
