"""Write the README's table of measured results from result files, so that nobody types a score.

python tools/results_table.py                                    rewrite the table
python tools/results_table.py --check                            fail where it is stale
python tools/results_table.py --add NAME --root W [--run-name R] keep a finished run's scores
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from einthoven.files import Workspace, read_json, write_json, write_text
from einthoven.scoring import MIN_RECORDS_FOR_HEADLINE

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
RESULTS = PROJECT / "benchmarks" / "results"
BEGIN, END = "<!-- results: tools/results_table.py writes this -->", "<!-- end of results -->"


def keep_run(name: str, workspace: Workspace) -> None:
    """Copy what the table needs of a finished run into the result files."""
    metrics = read_json(workspace.checkpoints_dir / "test_metrics.json")
    run = read_json(workspace.checkpoints_dir / "run.json")
    archives = {
        archive: {
            "n": part["n"],
            "n_patient_groups": part["n_patient_groups"],
            "auroc": part["auroc"]["macro"],
            "f1": part["f1"]["macro"],
        }
        for archive, part in metrics["archives"].items()
    }
    kept = {
        "label_set": metrics["label_set"],
        "task": metrics["task"],
        "seed": metrics["seed"],
        "resamples": metrics["resamples"],
        "archives": archives,
        "headline": metrics["headline"],
        "pooled": {"n": metrics["n"], "auroc": metrics["auroc"]["macro"]},
        **{key: run[key] for key in ("settings", "versions", "hardware", "data", "n_train")},
    }
    kept["settings"].pop("root")
    kept["settings"].pop("dataset_dir")
    write_json(RESULTS / f"scores_{name}.json", kept)


def results_table() -> str:
    """Markdown: a row per archive and run, then the speed of preparation."""
    lines = [
        "| run | test split | records | macro AUROC (95 %) | macro F1 (95 %) | seed |",
        "|---|---|---:|---|---|---:|",
    ]
    for path in sorted(RESULTS.glob("scores_*.json")):
        lines += score_rows(path.stem.removeprefix("scores_"), read_json(path))
    prepare = RESULTS / "prepare.json"
    if prepare.exists():
        lines += ["", speed_line(json.loads(prepare.read_text(encoding="utf-8")))]
    return "\n".join(lines)


def score_rows(name: str, kept: dict[str, Any]) -> list[str]:
    return [
        f"| {name.replace('_', ' ')} | {archive} | {part['n']:,} | {interval(part['auroc'])} "
        f"| {interval(part['f1'])} | {kept['seed']} |"
        for archive, part in kept["archives"].items()
        if part["n"] >= MIN_RECORDS_FOR_HEADLINE
    ]


def interval(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "none"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def speed_line(prepare: dict[str, Any]) -> str:
    ratio = prepare["ratio"]
    return (
        f"Preparing 500 Hz records takes one core {1 / ratio['median']:.0%} of the time of the "
        f"usual loop (wfdb, resample_poly, sosfiltfilt): {ratio['median']:.1f} times as fast, "
        f"measured by `benchmarks/prepare.py`."
    )


def with_table(text: str) -> str:
    """The README with its table as the result files have it."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{results_table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", metavar="NAME")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--run-name", default="")
    given = parser.parse_args()
    if given.add:
        keep_run(given.add, Workspace(given.root, given.run_name))
    text = README.read_text(encoding="utf-8")
    if given.check:
        if with_table(text) != text:
            print("README.md is stale; run `python tools/results_table.py`", file=sys.stderr)
            return 1
        return 0
    write_text(README, with_table(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
