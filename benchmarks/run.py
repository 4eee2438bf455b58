"""Measure sparseshare against other packages: `python benchmarks/run.py [row ...]`.

Writes a JSON file a row, the table `speed.md` and plots into `benchmarks/results`; with `--quick`, which shows that
everything runs and measures nothing, into `benchmarks/output`.
"""

import argparse
import json
import os
from pathlib import Path

import plots
from contest import race
from data import DataMissing
from report import environment, write_table
from rows import ROWS
from settings import Settings

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description="Measure sparseshare against other packages.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"one or more of {', '.join(ROWS)}; none means all")
    parser.add_argument("--quick", action="store_true", help="few signals, few repeats: only to see that rows run")
    parser.add_argument("--threads", type=int, default=2, help="of every contestant (default: 2)")
    parser.add_argument(
        "--peers-python",
        metavar="[PEER=]FILE",
        action="append",
        default=[],
        help="interpreter that has the other packages, or this one of them, installed; may be given for each",
    )
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        type=Path,
        default=os.environ.get("SPARSESHARE_DATA"),
        help="with mnist/ and images/, see data.py; rows that find no data are left out",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown rows {sorted(unknown)}: choose from {', '.join(ROWS)}")
    pythons = {peer: file for peer, _, file in (each.rpartition("=") for each in arguments.peers_python)}
    settings = Settings(arguments.quick, arguments.threads, pythons, arguments.data)
    folder = HERE / ("output" if arguments.quick else "results")
    folder.mkdir(exist_ok=True)

    copy = {"copy": ("floor", "bandwidth", {}, {"n_bytes": 2**28})}
    facts = environment(settings.threads, float(race(copy, settings)["copy"]["result"]["rate"]))
    for command in arguments.rows or ROWS:
        try:
            row = ROWS[command](settings)
        except DataMissing as reason:
            print(f"{command}: left out, {reason}", flush=True)
            continue
        content = {"command": command, "environment": facts, "row": row.as_json()}
        (folder / f"{command}.json").write_text(json.dumps(content, indent=1) + "\n")
        for line in row.lines:
            ratio = "" if line.ratio is None else f"{line.ratio:8.1f} x"
            print(
                f"{row.name:28} {line.against:32} {ratio:10} {line.verdict:18} {line.accuracy} {line.note}", flush=True
            )
        if command in plots.DRAWINGS:
            plots.DRAWINGS[command](row.series, folder / f"{command}.png")
    write_table(folder, ROWS)
    print((folder / "speed.md").relative_to(HERE.parent))


if __name__ == "__main__":
    main()
