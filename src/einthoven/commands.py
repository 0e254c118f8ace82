"""What each command of ``einthoven`` does; `stages` says what it takes.

Heavy imports live inside the commands: ``einthoven --help`` must not wait for torch, and a
command's own help only for its settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from einthoven.errors import ConfigError
from einthoven.version import DISCLAIMER

if TYPE_CHECKING:
    from einthoven.configuration import LoadedSettings


def archives(loaded: LoadedSettings, name: str | None, as_json: bool) -> int:
    from einthoven.download.telling import archives_said

    click.echo(archives_said(loaded.settings, name or "", as_json))
    return 0


def download(
    loaded: LoadedSettings, names: tuple[str, ...], zip_path: Path | None, **wanted: Any
) -> int:
    from einthoven.download.command import download_archives
    from einthoven.download.outcome import Wanted
    from einthoven.download.telling import download_summary

    outcomes = download_archives(loaded.settings, names, Wanted(**wanted), zip_path)
    click.echo(download_summary(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


def show_config(loaded: LoadedSettings) -> int:
    from einthoven.console import format_table

    settings = loaded.settings
    values = settings.model_dump(mode="json") | {"dataset_dir": str(settings.archives_dir)}
    # The value comes last: a path may be longer than a line.
    rows = [
        [name.upper(), loaded.origins[name], "(unset)" if value == "" else str(value)]
        for name, value in values.items()
    ]
    click.echo(format_table(["setting", "origin", "value"], rows))
    return 0


def label(loaded: LoadedSettings) -> int:
    from einthoven.labelling import label_archives

    label_archives(loaded.settings)
    return 0


def prepare(loaded: LoadedSettings) -> int:
    from einthoven.prepare import prepare_archives

    prepare_archives(loaded.settings)
    return 0


def check(loaded: LoadedSettings, json_form: bool, port: int | None) -> int:
    import json

    from einthoven.preflight.checks import (
        checks_as_json,
        format_checks,
        run_preflight_checks,
        worst_verdict,
    )

    checks = run_preflight_checks(loaded.settings, port)
    told = json.dumps(checks_as_json(checks), indent=2) if json_form else format_checks(checks)
    click.echo(told)
    return int(worst_verdict(checks) == "failed")


def train(loaded: LoadedSettings) -> int:
    from einthoven.modes import run_mode

    outcome = run_mode(loaded.settings, loaded.origins)
    if outcome.summary:
        click.echo(outcome.summary)
    return 0 if outcome.is_passed else 1


def evaluate(
    loaded: LoadedSettings,
    split: str,
    fold: int | None,
    archive: str,
    external: Path | None,
    model: Path | None,
) -> int:
    from einthoven.evaluation import evaluate_detailed
    from einthoven.scopes import Scope, metrics_path
    from einthoven.summary import evaluation_summary

    if (split != "test") + bool(fold) + (external is not None) > 1:
        raise ConfigError("--split, --fold and --external each name records; give one of them")
    scope = Scope(split, fold or 0, archive, external, model)
    click.echo(evaluation_summary(evaluate_detailed(loaded.settings, scope)))
    click.echo(f"{metrics_path(loaded.settings.workspace, scope)}  {DISCLAIMER}")
    return 0


def compare(loaded: LoadedSettings, first: str, second: str, output: Path | None) -> int:
    from einthoven.comparison.paired import compare_runs
    from einthoven.comparison.scored_runs import resolve_run
    from einthoven.comparison.telling import comparison_summary
    from einthoven.files import write_json

    settings = loaded.settings
    paths = [resolve_run(settings.root, written) for written in (first, second)]
    result = compare_runs(paths[0], paths[1], settings.bootstrap_resamples, settings.seed)
    if output is not None:
        write_json(output, result)
    click.echo(comparison_summary(result))
    return 0


def crossval(loaded: LoadedSettings) -> int:
    from einthoven.crossval import cross_validate, crossval_summary

    result = cross_validate(loaded.settings, loaded.origins)
    click.echo(crossval_summary(result))
    return int(any(part.get("error") for part in result["parts"]))


def tune(loaded: LoadedSettings, space: Path | None, show_space: bool, confirm: int | None) -> int:
    from einthoven.tuning.command import space_of_search
    from einthoven.tuning.command import tune as search_settings
    from einthoven.tuning.confirmation import confirm_best

    settings, origins = loaded.settings, loaded.origins
    if show_space:
        click.echo(space_of_search(settings, origins, space), nl=False)
        return 0
    click.echo(search_settings(settings, origins, space))
    if confirm:
        click.echo(confirm_best(settings, origins, confirm))
    return 0


def predict(
    loaded: LoadedSettings,
    paths: tuple[Path, ...],
    model: Path | None,
    json_path: Path | None,
    csv_path: Path | None,
    plot_dir: Path | None,
    fs: float | None,
    units: str | None,
    leads: str | None,
) -> int:
    from einthoven.file_prediction import (
        CSV_SUFFIXES,
        open_predictor,
        predict_files,
        prediction_summary,
    )
    from einthoven.formats.hints import reading_hints
    from einthoven.outputs import check_outputs

    path = model or loaded.settings.workspace.best_model_path
    hints = reading_hints(fs, units, leads)
    check_outputs({"--json": (json_path, (".json",)), "--csv": (csv_path, CSV_SUFFIXES)}, [path])
    predictor = open_predictor(path, loaded.settings.device, asked_rule(loaded))
    done = predict_files(
        paths, predictor, hints, json_path=json_path, csv_path=csv_path, plot_dir=plot_dir
    )
    click.echo(prediction_summary(done, is_written=bool(json_path or csv_path)))
    return int(done.n_errors > 0)


def explain(
    loaded: LoadedSettings,
    path: str,
    label: str | None,
    method: str,
    model: Path | None,
    json_path: Path | None,
    plot_path: Path | None,
    fs: float | None,
    units: str | None,
    leads: str | None,
) -> int:
    from einthoven.explain.command import explain_file
    from einthoven.formats.hints import reading_hints

    said = explain_file(
        model or loaded.settings.workspace.best_model_path, Path(path),
        reading_hints(fs, units, leads), device=loaded.settings.device, rule=asked_rule(loaded),
        label=label, method=method, json_path=json_path, plot_path=plot_path,
    )  # fmt: skip
    click.echo(f"{said}\n{DISCLAIMER}")
    return 0


def export(
    loaded: LoadedSettings, format: str, model: Path | None, output: Path | None, int8: bool
) -> int:
    from einthoven.exporting.command import export_summary, export_trained

    rule = asked_rule(loaded)
    click.echo(export_summary(export_trained(loaded.settings, format, model, output, int8, rule)))
    return 0


def asked_rule(loaded: LoadedSettings) -> str | None:
    """The threshold rule that somebody asked for; None leaves it to the model's file."""
    asked = loaded.origins["threshold_rule"] != "default"
    return loaded.settings.threshold_rule if asked else None


def serve(loaded: LoadedSettings, model: Path | None, host: str, port: int, token: str) -> int:
    from einthoven.serving import server

    path = model or loaded.settings.workspace.best_model_path
    server.serve(path, host=host, port=port, token=token, device=loaded.settings.device)
    return 0


def report(loaded: LoadedSettings) -> int:
    from einthoven.report.writing import write_report

    path = write_report(loaded.settings)
    click.echo(f"Report: {path}")
    return 0


def run(loaded: LoadedSettings) -> int:
    """Every stage in order; each skips itself when it is up to date."""
    from einthoven.modes import settings_of_mode
    from einthoven.run_folder import refuse_other_run

    # Before `prepare` replaces the store that the run in this folder was made from.
    refuse_other_run(settings_of_mode(loaded.settings))
    stages = [label, prepare, train]
    # A dry run leaves nothing to report, and a smoke test has its report.
    if not loaded.settings.dry_run and loaded.settings.run_mode != "smoke":
        stages.append(report)
    return next((code for stage in stages if (code := stage(loaded))), 0)


def demo(loaded: LoadedSettings) -> int:
    from einthoven.synthetic.archives import write_synthetic_archives

    write_synthetic_archives(loaded.settings.archives_dir, seed=loaded.settings.seed)
    code = run(loaded)
    if code == 0:
        click.echo(f"These are scores on synthetic records. {DISCLAIMER}")
    return code
