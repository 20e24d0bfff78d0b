#!/usr/bin/env python3
"""Makes many run folders, of one real run with other names and numbers, and times `nct runs` on them.

usage: tools/many_runs.py --nct target/release/nct --run RUN [--n 10000] [--keep DIR]
RUN is a finished run. Prints seconds of a first listing (which makes the index), of reindex, and of a listing with a
filter, the least of five.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nct", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--keep", help="make the folders here and leave them")
    args = parser.parse_args()
    nct, run = Path(args.nct).resolve(), Path(args.run)
    texts = {name: (run / name).read_text() for name in ("config.toml", "manifest.json", "metrics.jsonl", "results.json")}
    root = Path(args.keep or tempfile.mkdtemp())
    for i in range(args.n):
        folder = root / f"20260101-{i:06}-run"
        folder.mkdir(parents=True)
        rows = json.loads(texts["results.json"])
        for row in rows:
            row["value"] = row["value"] * (1 + i / args.n)
        config = re.sub(r"\nseed = \d+", f"\nseed = {i}", texts["config.toml"], count=1)
        for name, text in {**texts, "config.toml": config, "results.json": json.dumps(rows)}.items():
            (folder / name).write_text(text)

    def seconds(*command):
        start = time.perf_counter()
        out = subprocess.run([nct, "runs", "--runs", root, *command], check=True, capture_output=True, text=True)
        return time.perf_counter() - start, out.stdout

    first, _ = seconds("ls", "--limit", "1")
    again, _ = seconds("reindex")
    row = json.loads(texts["results.json"])[0]
    metric = ".".join(row[key].replace(" ", "_") for key in ("task", "mode", "metric"))
    filtered = ("ls", "--where", f"{metric}>-1e9", "--where", "state=done", "--top", metric, "--limit", "20", "--json")
    times = [seconds(*filtered) for _ in range(5)]
    print(json.dumps({
        "runs": args.n, "first_listing_s": round(first, 2), "reindex_s": round(again, 2),
        "filtered_listing_s": round(min(t for t, _ in times), 3), "listed": len(times[0][1].splitlines()),
        "index_bytes": (root / "index.sqlite").stat().st_size,
    }))
    if not args.keep:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
