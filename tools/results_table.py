"""Write the tables of measured results from result files, so that nobody types a score.

python tools/results_table.py                                    rewrite the tables
python tools/results_table.py --check                            fail where one is stale
python tools/results_table.py --add NAME --root W [--run-name R] keep a finished run's scores,
                                                                 or a cross-validation's
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from einthoven.files import Workspace, read_json, write_json, write_text
from einthoven.scoring import MIN_RECORDS_FOR_HEADLINE

PROJECT = Path(__file__).resolve().parents[1]
README = PROJECT / "README.md"
WHAT_WAS_TRIED = PROJECT / "docs" / "explanation" / "negative-results.md"
RESULTS = PROJECT / "benchmarks" / "results"


def keep_crossval(name: str, path: Path) -> None:
    """Copy what the table needs of a cross-validation into the result files."""
    found = read_json(path)
    names = ("held_out", "label_set", "task", "seed", "resamples", "left_out", "mean")
    parts = [
        {
            "held_out": part.get("archive") or ", ".join(map(str, part["folds"])),
            "n_train": part["n_train"],
            "n": part["n"],
            "auroc": part["headline"]["auroc"]["macro"],
            "f1": part["headline"]["f1"]["macro"],
        }
        for part in found["parts"]
    ]
    first = path.parent.parent / found["parts"][0]["run"] / "run.json"
    described = {key: read_json(first)[key] for key in ("settings", "versions", "hardware")}
    for key in ("root", "dataset_dir"):
        described["settings"].pop(key)
    pooled = (found.get("pooled") or {}).get("headline")
    kept = {name: found[name] for name in names} | {"parts": parts, "pooled": pooled} | described
    write_json(RESULTS / f"crossval_{name}.json", kept)


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
            "calibration_error": part["expected_calibration_error"]["macro"],
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
        "calibration_error": {
            "before": metrics["uncalibrated"]["expected_calibration_error"]["macro"],
            "after": metrics["expected_calibration_error"]["macro"],
        },
        **{key: run[key] for key in ("settings", "versions", "hardware", "data", "n_train")},
    }
    kept["settings"].pop("root")
    kept["settings"].pop("dataset_dir")
    write_json(RESULTS / f"scores_{name}.json", kept)


def results_table() -> str:
    """Markdown: a row per archive and run, then the speed of preparation."""
    lines = [
        "| run | test split | records | macro AUROC (95 %) | macro F1 (95 %) "
        "| calibration error (95 %) | seed |",
        "|---|---|---:|---|---|---|---:|",
    ]
    for path in sorted(RESULTS.glob("scores_*.json")):
        lines += score_rows(path.stem.removeprefix("scores_"), read_json(path))
    for path in sorted(RESULTS.glob("crossval_*.json")):
        lines += ["", crossval_line(read_json(path))]
    for name, line in (
        ("recipe", recipe_line),
        ("prepare", speed_line),
        ("train_throughput", throughput_line),
        ("resume_soak", soak_line),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            lines += ["", line(read_json(path))]
    return "\n".join(lines)


def crossval_line(crossval: dict[str, Any]) -> str:
    if crossval["held_out"] == "archives":
        rows = [
            f"{part['held_out']} (trained on {part['n_train']:,} others, tested on {part['n']:,}) "
            f"{interval(part['auroc'])}"
            for part in crossval["parts"]
        ]
        return (
            f"Trained without one archive and tested on it, {crossval['label_set']}, macro AUROC: "
            f"{'; '.join(rows)}; seed {crossval['seed']}, `einthoven crossval --by-archive`."
        )
    auroc, pooled = crossval["mean"]["auroc"]["macro"], crossval["pooled"]
    return (
        f"Cross-validated over {len(crossval['parts'])} parts of the patients, "
        f"{crossval['label_set']}: macro AUROC {auroc['value']:.3f} (standard deviation over parts "
        f"{auroc['sd']:.3f}); all out-of-fold predictions together "
        f"{interval(pooled['auroc']['macro'])}, macro F1 {interval(pooled['f1']['macro'])}, "
        f"n = {pooled['n']:,}, seed {crossval['seed']}, `einthoven crossval`."
    )


def recipe_table() -> str:
    """Markdown: a row per recipe and arithmetic of ``benchmarks/recipe.py``."""
    path = RESULTS / "recipe.json"
    if not path.exists():
        return ""
    recipe = read_json(path)
    lines = ["| recipe | macro AUROC (95 %) | ours minus this (95 %) | CPU s per group |"]
    lines.append("|---|---|---|---|")
    for name, figure in recipe["auroc"].items():
        less = recipe["ours_minus"].get(name)
        seconds = recipe["cpu_s"].get(name, ())
        lines.append(
            f"| {name} | {interval(figure)} | {difference(less) if less else ''} "
            f"| {', '.join(f'{s:.0f}' for s in seconds)} |"
        )
    n = next(iter(recipe["auroc"].values()))["n"]
    lines += ["", f"{recipe['split']}; n = {n:,}, seed {recipe['seed']}."]
    return "\n".join(lines)


def difference(figure: dict[str, Any]) -> str:
    return f"{figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f})"


def recipe_line(recipe: dict[str, Any]) -> str:
    ours, reference = recipe["auroc"]["ours"], recipe["auroc"]["reference"]
    mean = recipe["ours_minus"]["reference, mean over crops"]
    spent = [sum(recipe["cpu_s"][name]) for name in ("ours", "reference")]
    return (
        f"Against the PTB-XL benchmark's own recipe for `resnet1d_wang`, trained by us in the same "
        f"folds: {interval(ours)} and {interval(reference)}, a difference of "
        f"{difference(recipe['ours_minus']['reference'])}, and {difference(mean)} where its crops "
        f"are averaged as ours are; at {spent[0] / spent[1]:.2f} times its CPU time. Macro AUROC, "
        f"superdiagnostic, folds 1–9 held out in three groups, n = {ours['n']:,}, seed "
        f"{recipe['seed']}, `benchmarks/recipe.py`."
    )


def throughput_line(throughput: dict[str, Any]) -> str:
    rows = [
        f"{name}: {model['loop_to_fixed']['median']:.2f} of the bare step, "
        f"{model['loop_to_textbook']['median']:.1f} times the textbook's loop"
        for name, model in throughput["models"].items()
    ]
    memory = throughput.get("memory")
    grows = (
        f" Peak memory with 1,000,000 streamed records is {memory['ratio']:.2f} times that with "
        "10,000, the manifest's columns aside; 1.10 is aimed at."
        if memory
        else ""
    )
    return (
        f"Training speed, whole loop ({'; '.join(rows)}): `benchmarks/train_throughput.py`.{grows}"
    )


def soak_line(soak: dict[str, Any]) -> str:
    return (
        f"Training killed with SIGKILL at {soak['kills']} random moments over {soak['runs']} runs: "
        f"{soak['runs_equal']} of {soak['runs']} ended with the bits of a run left alone, "
        "`benchmarks/resume_soak.py`."
    )


def score_rows(name: str, kept: dict[str, Any]) -> list[str]:
    return [
        f"| {name.replace('_', ' ')} | {archive} | {part['n']:,} | {interval(part['auroc'])} "
        f"| {interval(part['f1'])} | {interval(part['calibration_error'])} | {kept['seed']} |"
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


def inference_table() -> str:
    """Markdown: a row per number of threads and of records together."""
    found = read_json(RESULTS / "inference.json")
    lines = [
        "| threads | records together | PyTorch | ONNX float32 | times as fast | ONNX int8 "
        "| times as fast |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["speed"]:
        cells = [str(row["threads"]), str(row["batch"]), milliseconds(row["pytorch"])]
        for runtime in ("onnx", "onnx_int8"):
            cells += [milliseconds(row[runtime]), times_as_fast(row[runtime]["times_pytorch"])]
        lines.append(f"| {' | '.join(cells)} |")
    busy = max(row["busy"] for row in found["speed"])
    lines += [
        "",
        f"From raw millivolts to decisions, records of 10 s at 100 Hz (7 crops each), "
        f"`{found['model']}`, two cores, at most {busy:.0f} % busy with other work before each "
        "measurement. Times are medians; times as fast: the median ratio to eager PyTorch of "
        "rounds taken in turns, with the 5th and 95th percentile.",
    ]
    return "\n".join(lines)


def milliseconds(timed: dict[str, Any]) -> str:
    median = timed["milliseconds"]["median"]
    return f"{median:.1f} ms" if median < 100 else f"{median:,.0f} ms"


def times_as_fast(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.1f} ({ratio['p5']:.1f} to {ratio['p95']:.1f})"


def serving_table() -> str:
    """Markdown: a row per kind of request, number of clients and batching."""
    found = read_json(RESULTS / "serving.json")
    lines = [
        "| requests | clients | windows per pass | answered | told to come back | failed or wrong "
        "| per second | p50 | p99 |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for case in found["cases"]:
        lines.append(
            f"| {case['kind']} | {case['clients']} | up to {case['batch_windows']} "
            f"| {case['answered']:,} | {case['told_to_come_back']:,} "
            f"| {case['failed'] + case['wrong']} | {case['requests_per_second']:.0f} "
            f"| {case['p50_ms']:,.0f} ms | {case['p99_ms']:,.0f} ms |"
        )
    lines += [
        "",
        f"{found['seconds']:.0f} s for each row, `{found['model']}`, {found['recording']}, "
        f"{found['threads']} threads on two cores that also ran the clients, "
        f"{found['requests_let_in']} requests let in at a time.",
    ]
    return "\n".join(lines)


def tuning_table() -> str:
    """Markdown: what a search found on PTB-XL, and whether it holds up."""
    path = RESULTS / "tuning.json"
    if not path.exists():
        return "Not measured yet: `benchmarks/tuning.py` does it."
    found = read_json(path)
    search, confirmed = found["search"], found["confirmation"]
    settings = ", ".join(f"`{name} = {value}`" for name, value in found["settings"].items())
    best, default = search["best"], search["default"]
    parts = {f"seed {seed}": part for seed, part in confirmed["by_seed"].items()}
    parts["mean over seeds"] = confirmed["mean"]
    lines = ["| | default | found | difference (95 %) |", "|---|---|---|---|"]
    for name, part in parts.items():
        scores = [interval(part[side]) for side in ("default", "tuned")]
        lines.append(f"| {name} | {' | '.join(scores)} | {difference(part['difference'])} |")
    given_up = f"{search.get('given up', 0)} given up"
    return "\n".join([
        f"Measured by `benchmarks/tuning.py`: {search['trials']} trials ({given_up}) of "
        f"{search['epochs']} epochs on PTB-XL's folds 4-9. On half of folds 1-3, which chose, the "
        f"best had a macro AUROC of {best['score']:.4f} and the default {default['score']:.4f}; on "
        f"the other half {best['other_half']:.4f} and {default['other_half']:.4f}. The best two "
        "and the default were then trained in full, and chosen among by all of folds 1-3: "
        + ", ".join(f"{k} {v:.4f}" for k, v in found["finalists"]["auroc"].items())
        + f". Confirmed was {settings} on folds 4-6, which had chosen nothing:",
        "",
        *lines,
        "",
        f"Macro AUROC of the last epoch, by models of the other six "
        f"of folds 1-9; n = {confirmed['mean']['difference']['n']:,}; intervals over patients.",
    ])  # fmt: skip


# Page, name of the part that is written there, and what writes it.
PARTS = (
    (README, "results", results_table),
    (WHAT_WAS_TRIED, "recipe", recipe_table),
    (PROJECT / "docs" / "how-to" / "export.md", "speed", inference_table),
    (PROJECT / "docs" / "how-to" / "serve.md", "load", serving_table),
    (PROJECT / "docs" / "how-to" / "tune.md", "tuning", tuning_table),
)


def with_table(text: str, part: str, table: str) -> str:
    """A page with its table as the result files have it."""
    begin, end = f"<!-- {part}: tools/results_table.py writes this -->", f"<!-- end of {part} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--add", metavar="NAME")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--run-name", default="")
    given = parser.parse_args()
    if given.add:
        workspace = Workspace(given.root, given.run_name)
        found = [
            path
            for path in (
                workspace.checkpoints_dir / f"{n}.json" for n in ("crossval", "by_archive")
            )
            if path.exists()
        ]
        for path in found:
            keep_crossval(given.add, path)
        if not found:
            keep_run(given.add, workspace)
    for page, part, table in PARTS:
        text = page.read_text(encoding="utf-8")
        fresh = with_table(text, part, table())
        if given.check and fresh != text:
            print(f"{page.name} is stale; run `python tools/results_table.py`", file=sys.stderr)
            return 1
        if not given.check:
            write_text(page, fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
