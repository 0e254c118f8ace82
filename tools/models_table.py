"""Write docs/reference/models.md from the architectures and their measured results.

python tools/models_table.py           rewrite the page
python tools/models_table.py --check   fail where it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from einthoven.files import read_json, write_text
from einthoven.models.costs import count_flops, count_parameters
from einthoven.models.registry import MODELS, build_model
from einthoven.records import LEADS

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "reference" / "models.md"
RESULTS = PROJECT / "benchmarks" / "results" / "models.json"
CROP, N_CLASSES = 250, 5
NOT_MEASURED = "–"

# What each follows; the module's docstring says how far.
PAPERS = {
    "resnet1d_views": ("Lakshminarayanan et al. 2017", "https://arxiv.org/abs/1612.01474"),
    "resnet1d_wang": ("Wang et al. 2017", "https://arxiv.org/abs/1611.06455"),
    "xresnet1d50": ("He et al. 2019", "https://arxiv.org/abs/1812.01187"),
    "xresnet1d101": ("He et al. 2019", "https://arxiv.org/abs/1812.01187"),
    "inception1d": ("Fawaz et al. 2020", "https://arxiv.org/abs/1909.04939"),
    "se_resnet1d": ("Hu et al. 2018", "https://arxiv.org/abs/1709.01507"),
    "crnn": ("Zihlmann et al. 2017", "https://arxiv.org/abs/1710.06122"),
    "s4d": ("Gu et al. 2022", "https://arxiv.org/abs/2206.11893"),
    "convnext1d": ("Liu et al. 2022", "https://arxiv.org/abs/2201.03545"),
    "patch_transformer": ("Dosovitskiy et al. 2021", "https://arxiv.org/abs/2010.11929"),
    "cnn2d": ("Jun et al. 2018", "https://arxiv.org/abs/1804.06812"),
}
INTRODUCTION = f"""# Models

Written by `tools/models_table.py`. `MODEL_NAME` picks one. Each takes any number of leads and any
window from 16 samples. Parameters and FLOPs (a multiplication and an addition are two) are those of
one crop of {len(LEADS)} leads × {CROP} samples, {N_CLASSES} classes, forwards.
"""
CAVEATS = """
This compares architectures at equal epochs on a small cut of PTB-XL, with one seed. Intervals are
over the scored patients only: another seed moves a score as well. More data and more epochs favour
larger models, so the order here need not be theirs elsewhere. The weights scored are those of the
last epoch. This is research software and no medical device.
"""


DEFAULT = """
**The default is `resnet1d_views`.** At these few epochs no row stands out: the intervals overlap,
and `convnext1d` and, for several times the time, `inception1d` score as high. It is the default
because with the default's own schedule, and at no more CPU time, it scores higher than the recipe
of the PTB-XL benchmark in the same folds ([by how much](../explanation/negative-results.md)); the
others have not been tried with schedules of their own. Where speed counts more, `crnn` and `cnn2d`
are twice as fast."""


def models_page() -> str:
    results = read_json(RESULTS) if RESULTS.exists() else {}
    rows = [model_row(name, results.get("models", {}).get(name)) for name in MODELS]
    header = (
        "| model | paper | parameters | MFLOPs | learning rate | records/s | macro AUROC (95 %) |\n"
        "|---|---|---:|---:|---:|---:|---|"
    )
    return "\n".join([INTRODUCTION, header, *rows, "", how_measured(results), DEFAULT, CAVEATS])


def model_row(name: str, result: dict[str, Any] | None) -> str:
    model = build_model(name, n_leads=len(LEADS), n_classes=N_CLASSES)
    title, address = PAPERS[name]
    flops = count_flops(model, len(LEADS), CROP)
    cells = [
        f"`{name}`",
        f"[{title}]({address})",
        f"{count_parameters(model):,}",
        f"{flops / 1e6:.1f}",
        *measured_cells(result),
    ]
    return f"| {' | '.join(cells)} |"


def measured_cells(result: dict[str, Any] | None) -> list[str]:
    """Learning rate, records per second, and score with interval."""
    if result is None:
        return [NOT_MEASURED] * 3
    score = result["auroc"]
    return [
        f"{result['lr']:g}",
        f"{result['records_per_s']:,.0f}",
        f"{score['value']:.3f} ({score['low']:.3f}–{score['high']:.3f})",
    ]


def how_measured(results: dict[str, Any]) -> str:
    if not results:
        return "None is measured yet: `benchmarks/models.py` does it."
    machines = {
        f"{row['hardware']['device']} ({row['hardware']['name']}, "
        f"{row['hardware']['threads']} threads, torch {row['versions']['torch']})"
        for row in results["models"].values()
    }
    return (
        f"Measured by `benchmarks/models.py`: {results['split']}; {results['n_train']:,} records "
        f"trained on, n = {results['n']:,} scored, {results['epochs']} epochs, seed "
        f"{results['seed']}, crops of {results['crop']} samples, arithmetic "
        f"{results['arithmetic']}. Records per second of training on "
        f"{' and '.join(sorted(machines))}, which other work shared: read them as rough. A dash: "
        "not measured."
    )


def main() -> int:
    if "--check" not in sys.argv:
        write_text(PAGE, models_page())
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == models_page():
        return 0
    print(f"{PAGE.name} is stale; run `python tools/models_table.py`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
