"""The table of the results, and the machine they were measured on."""

import json
import platform
import re
from datetime import date
from importlib import metadata
from pathlib import Path

import sparseshare

PACKAGES = ("numpy", "scipy", "numba", "scikit-learn")


def environment(threads, bandwidth):
    """What a reader has to know of the machine: no names, no paths.

    Parameters
    ----------
    threads : int
    bandwidth : float
        Bytes a second of a plain copy.

    Returns
    -------
    dict
    """
    machine = {"processor": processor(), "threads": threads, "copy_GB_per_s": round(bandwidth / 1e9, 1)}
    return machine | versions()


def versions():
    """Date, Python and the packages that the results depend on."""
    packages = {package: metadata.version(package) for package in PACKAGES}
    ours = {"date": date.today().isoformat(), "sparseshare": sparseshare.__version__}
    return ours | {"python": platform.python_version()} | packages


def processor():
    """Its name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", information.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def write_table(folder, order):
    """`speed.md` from the rows measured so far (`*.json` in the folder), in the order of the names given."""
    measured = {}
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text())
        if "lines" in content.get("row", {}):
            measured[content["command"]] = content
    contents = [measured[command] for command in order if command in measured]
    text = ["# Speed against other packages", ""]
    text += [
        "Made by `python benchmarks/run.py`. A time is the least of several runs in turns; both times of a ratio come",
        "from one run. The ratio is theirs over ours: above 1 we are faster or smaller.",
        "",
    ]
    text += _environments(contents)
    text += ["| work | against | ours | theirs | ratio | at least | | accuracy, ours against theirs |"]
    text += ["|---|---|---|---|---|---|---|---|"]
    for content in contents:
        text += [_line(content["row"], line) for line in content["row"]["lines"]]
    text += ["", "## Above the floor", ""]
    text += [
        "The floor of a coder: the product of all signals with all atoms (by tiles in cache, as many threads), and the",
        "bytes of signals, dictionary and sparse codes moved once at the speed of a plain copy.",
        "",
        "| work | ours | the product | times above | bytes a signal | moved in | times above |",
        "|---|---|---|---|---|---|---|",
    ]
    text += [_floor(content) for content in contents if content["row"]["floor"]]
    (folder / "speed.md").write_text("\n".join(text) + "\n")


def _environments(contents):
    described = {}
    for content in contents:
        facts = ", ".join(f"{key} {value}" for key, value in content["environment"].items() if key != "copy_GB_per_s")
        described.setdefault(facts, []).append(content["command"])
    if len(described) == 1:
        return [f"Measured: {facts}." for facts in described] + [""]
    return [f"- {', '.join(commands)}: {facts}" for facts, commands in described.items()] + [""]


def _line(row, line):
    unit = {"µs a signal": "µs"}.get(row["unit"], row["unit"])
    theirs = "" if line["theirs"] is None else f"{_number(line['theirs'])} {unit}"
    ratio = "" if line["ratio"] is None else f"{_number(line['ratio'])} x"
    least = "" if line["at_least"] is None else f"{_number(line['at_least'])} x"
    accuracy = "; ".join(part for part in (line["accuracy"], line["note"]) if part)
    cells = [row["work"], line["against"], f"{_number(line['ours'])} {unit}", theirs, ratio, least, line["verdict"]]
    return "| " + " | ".join([*cells, accuracy]) + " |"


def _floor(content):
    row, floor = content["row"], content["row"]["floor"]
    moved = floor["bytes"] / content["environment"]["copy_GB_per_s"] / 1e3  # bytes / (GB/s) is ns: in µs
    cells = [
        row["work"],
        f"{_number(floor['ours'])} µs",
        f"{_number(floor['gemm'])} µs",
        _number(floor["ours"] / floor["gemm"]),
        f"{floor['bytes']:.0f}",
        f"{_number(moved)} µs",
        _number(floor["ours"] / moved),
    ]
    return "| " + " | ".join(cells) + " |"


def _number(value):
    """Three significant digits, without exponent."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
