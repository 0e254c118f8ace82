"""A model's answer to one signal, the examples that show its answers, and how they are drawn."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from evaluated_workspace import draw_coarsely
from fake_ecgs import fake_ecg, settings_for, write_own_archive
from matplotlib.backends.backend_agg import FigureCanvasAgg

from einthoven import prediction
from einthoven.errors import CheckpointError, ConfigError, DataError, RecordError
from einthoven.evaluation import evaluate_detailed
from einthoven.examples import MOST_CLASSES_WITH_EXAMPLE, choose_example_records
from einthoven.figures.prediction import visualize_prediction_sample
from einthoven.files import read_json, write_json
from einthoven.inference import predict_records
from einthoven.labelling import read_mapping
from einthoven.models.registry import MODELS
from einthoven.models.resnet1d import ResNet1d
from einthoven.prediction import (
    examples_path,
    load_best_model,
    predict_sample,
    run_inference_examples,
)
from einthoven.prepare import prepare_archives
from einthoven.readers.registry import read_signal
from einthoven.records import LEADS
from einthoven.samples import prepare_sample
from einthoven.scopes import predictions_path
from einthoven.store import open_store, stored_signal
from einthoven.training import train_production
from einthoven.version import DISCLAIMER

FIVE = ("MI", "AF", "BBB", "NORM", "OTHER")
narrow_resnet = partial(ResNet1d, width=16)


def odd_recordings() -> list[tuple[np.ndarray, float, tuple[str, ...]]]:
    """Recordings of every rate, length and choice of leads that a store may meet."""
    whole = [(fake_ecg(seed, 200, 4), 200.0, LEADS) for seed in range(46)]
    gap = fake_ecg(50, 200, 4)
    gap[2, 100:130] = np.nan
    lost = fake_ecg(51, 200, 4)
    lost[8, :400] = np.nan
    eight = [LEADS.index(name) for name in ("V6", "V5", "V4", "V3", "V2", "V1", "II", "I")]
    odd = [
        (fake_ecg(52, 500, 7.3), 500.0, LEADS),
        (fake_ecg(53, 257, 2.5), 257.0, LEADS),
        (fake_ecg(54, 100, 4), 100.0, LEADS),
        (fake_ecg(55, 300, 1.4), 300.0, LEADS),
        (gap, 200.0, LEADS),
        (lost, 200.0, LEADS),
        (fake_ecg(56, 200, 4)[eight], 200.0, tuple(LEADS[lead] for lead in eight)),
        (fake_ecg(57, 300, 9)[:1], 300.0, ("I",)),
        (np.concatenate([fake_ecg(58, 200, 4), fake_ecg(59, 200, 4)[:1]]), 200.0, (*LEADS, "vx")),
    ]
    return [*whole, *odd]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """An archive, its store, a model trained on it for an epoch, and its scores."""
    root = tmp_path_factory.mktemp("prediction")
    signals, rates, leads = zip(*odd_recordings(), strict=True)
    write_own_archive(
        root / "Dataset" / "mine", list(signals), list(rates),
        leads=[";".join(names) for names in leads], age=[40 + k for k in range(len(signals))],
        labels=[FIVE[k % 5] for k in range(len(signals))],
    )  # fmt: skip
    settings = settings_for(
        root, epochs=1, device="cpu", crop_samples=100, bootstrap_resamples=100, bandpass=True,
        batch_size_cpu=16,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
        patch.setattr("einthoven.evaluation.save_score_figures", lambda *_: [])
        draw_coarsely(patch)
        prepare_archives(settings)
        train_production(settings)
        evaluate_detailed(settings)
    return settings


@pytest.fixture(autouse=True)
def narrow_model(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
    draw_coarsely(monkeypatch)


@pytest.fixture
def trained(settings):
    return load_best_model(settings)


def one_lead(n_samples=400):
    return fake_ecg(0, 200, n_samples / 200)[:1]


# The same as the stored prediction ---------------------------------------------------------------


def test_a_records_own_file_gives_its_stored_signal_and_its_stored_prediction(settings, trained):
    store, mapping = open_store(settings.workspace), read_mapping(settings.workspace.mapping_path)
    stored = predict_records(trained, store, np.arange(len(store.manifest)))
    assert len(mapping) == len(stored) == 55
    for row, entry in enumerate(mapping.itertuples()):
        folder = settings.archives_dir / entry.folder
        answer = predict_sample(trained, *read_signal(entry.reader, folder, entry.path))
        facts = store.manifest.iloc[row]
        np.testing.assert_array_equal(answer.sample.microvolts, stored_signal(store, row))
        np.testing.assert_allclose(list(answer.probabilities.values()), stored[row], atol=1e-6)
        assert ",".join(answer.sample.leads_present) == facts["leads_present"]
        assert (answer.n_windows, answer.sample.recorded_fs) == (facts["n_windows"], facts["fs"])


def test_answers_of_evaluation_are_those_of_predict_sample(settings, trained):
    table = pd.read_parquet(predictions_path(settings.workspace))
    mapping = read_mapping(settings.workspace.mapping_path).set_index("record_id")
    for _, row in table[table["split"] == "test"].iterrows():
        entry = mapping.loc[row["record"].partition("/")[2]]
        folder = settings.archives_dir / entry["folder"]
        answer = predict_sample(trained, *read_signal(entry["reader"], folder, entry["path"]))
        decided = tuple(label for label in FIVE if row[f"decision_{label}"])
        assert answer.decisions == decided and len(decided) == 1
        for label, probability in answer.probabilities.items():
            assert probability == pytest.approx(row[f"probability_{label}"], abs=1e-6)


# Any signal --------------------------------------------------------------------------------------


def test_leads_are_told_by_name_and_not_by_place(trained):
    signal, order = fake_ecg(1), np.random.default_rng(0).permutation(12)
    straight = predict_sample(trained, signal, 200, LEADS)
    mixed = predict_sample(trained, signal[order], 200, [LEADS[lead].upper() for lead in order])
    assert mixed.probabilities == straight.probabilities
    assert "leads put in standard order" in mixed.sample.steps
    assert "leads put in standard order" not in straight.sample.steps


def test_limb_leads_that_others_determine_are_computed(trained):
    signal, kept = fake_ecg(2), [0, 1, *range(6, 12)]
    whole = predict_sample(trained, signal, 200, LEADS)
    eight = predict_sample(trained, signal[kept], 200, [LEADS[lead] for lead in kept])
    for label, probability in eight.probabilities.items():
        assert probability == pytest.approx(whole.probabilities[label], abs=1e-3)
    assert eight.sample.steps[0] == "computed from two limb leads: III, aVR, aVL, aVF"
    assert eight.sample.leads_present == LEADS and not eight.sample.warnings


def test_what_is_done_to_a_signal_is_told_in_order(trained):
    signal = np.concatenate([fake_ecg(3, 500, 7), fake_ecg(4, 500, 7)[:1]])
    answer = predict_sample(trained, signal, 500, (*LEADS, "vx"))
    assert answer.sample.steps == (
        "left out, as none of the twelve leads: vx",
        "resampled from 500 to 100 Hz",
        "band-pass from 0.5 to 40 Hz",
        "cut into 4 windows of 2 s; their probabilities are averaged",
    )
    assert answer.n_windows == 4 and answer.sample.seconds == 7 and answer.sample.warnings == ()


def test_what_may_mislead_is_told(trained):
    signal = fake_ecg(5, 80, 1.1)
    signal[2] = 0
    signal[7, :10] = np.nan
    signal[9] = np.nan
    answer = predict_sample(trained, signal[:10], 80, LEADS[:10])
    warnings = "\n".join(answer.sample.warnings)
    assert "absent, zero for the model: V2, V4, V5, V6" in warnings
    assert "flat: III" in warnings
    assert "of the samples, interpolated" in warnings
    assert "recorded at 80 Hz for a model of 100 Hz" in warnings
    assert "shorter than" not in warnings
    brief = replace(trained, input=replace(trained.input, crop=200))
    warnings = predict_sample(brief, signal[:10], 80, LEADS[:10]).sample.warnings
    assert any(line.startswith("shorter than the 2 s that the model looks at") for line in warnings)


def test_swapped_lead_names_are_suspected(trained):
    names = ["II", "I", *LEADS[2:]]
    (warning,) = predict_sample(trained, fake_ecg(6), 200, names).sample.warnings
    assert "the limb leads contradict each other" in warning and "swapped" in warning


@pytest.mark.parametrize(
    ("signal", "fs", "leads", "message"),
    [
        (fake_ecg(0).T, 200, LEADS, r"\(sample, lead\).*transpose it"),
        (fake_ecg(0)[0], 200, ["I"], r"shape \(2000,\)"),
        (fake_ecg(0), 200, ["I", "II"], "2 lead names for 12 rows"),
        (one_lead(), 200, ["Q1"], "lead name 'Q1' is not known"),
        (one_lead(), 200, ["vx"], "none of the twelve leads is there"),
        (1000 * fake_ecg(0), 200, LEADS, "the unit or gain"),
        (fake_ecg(0) / 1000, 200, LEADS, "no electrode was attached"),
        (np.zeros((12, 500)), 100, LEADS, "every lead is flat"),
        (np.full((1, 500), np.nan), 100, ["I"], "no lead has values"),
        (one_lead(100), 200, ["I"], "at least 1 s"),
        (one_lead(), 0, ["I"], "the sampling rate is 0 Hz"),
        (one_lead(), float("nan"), ["I"], "the sampling rate is nan Hz"),
        (np.zeros((1, 0)), 100, ["I"], "empty"),
        (np.zeros((1, 100 * 3601), np.int8), 100, ["I"], "at most 1 h are taken"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_ecg_in_millivolts_is_refused_with_a_reason(
    trained, signal, fs, leads, message
):
    with pytest.raises(RecordError, match=message):
        predict_sample(trained, signal, fs, leads)


def test_any_kind_of_array_is_taken_and_left_as_it_is(trained):
    signal = fake_ecg(7)
    kinds = [signal.astype(np.float64), np.asfortranarray(signal), signal[:, ::1].copy()]
    kinds[2].flags.writeable = False
    answers = [predict_sample(trained, kind, 200, list(LEADS)) for kind in kinds]
    assert all(answer.probabilities == answers[0].probabilities for answer in answers)
    assert all(np.array_equal(kind.astype(np.float32), signal) for kind in kinds)


# The answer --------------------------------------------------------------------------------------


def test_several_labels_are_decided_at_the_stored_thresholds(trained):
    p = predict_sample(trained, fake_ecg(8), 200, LEADS).probabilities
    limits = dict.fromkeys(FIVE, 2.0)
    calibration = replace(trained.calibration, method="platt")
    multi = replace(
        trained, single=False, calibration=calibration, threshold_sets={"best_f1": limits}
    )
    assert predict_sample(multi, fake_ecg(8), 200, LEADS).decisions == ()
    p = predict_sample(multi, fake_ecg(8), 200, LEADS).probabilities
    limits.update(MI=p["MI"] - 1e-6, NORM=p["NORM"] - 1e-6, AF=p["AF"] + 1e-6)
    answer = predict_sample(multi, fake_ecg(8), 200, LEADS)
    assert answer.decisions == ("MI", "NORM") and answer.thresholds["AF"] == p["AF"] + 1e-6


def test_one_label_is_the_likeliest(trained):
    answer = predict_sample(trained, fake_ecg(8), 200, LEADS)
    assert answer.decisions == (max(answer.probabilities, key=answer.probabilities.get),)
    assert sum(answer.probabilities.values()) == pytest.approx(1) and answer.thresholds == {}


def test_an_answer_is_plain_json_with_its_disclaimer(trained):
    values = predict_sample(trained, fake_ecg(9)[:1], 200, ["I"]).values()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["disclaimer"] == DISCLAIMER and values["leads_present"] == ["I"]


def test_a_model_that_diverged_gives_no_answer(trained):
    for parameter in trained.model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(DataError, match="probabilities that are no numbers"):
        predict_sample(trained, fake_ecg(10), 200, LEADS)


def test_a_model_is_loaded_by_settings_or_by_its_file(settings, tmp_path):
    path = settings.workspace.best_model_path
    copied = tmp_path / "handed on.pth"
    copied.write_bytes(path.read_bytes())
    models = [load_best_model(settings), load_best_model(copied), load_best_model(str(path), "cpu")]
    answers = [predict_sample(model, fake_ecg(11), 200, LEADS) for model in models]
    assert all(answer.probabilities == answers[0].probabilities for answer in answers)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_best_model(tmp_path / "none.pth")


def test_a_sample_can_be_prepared_without_a_model(trained):
    sample = prepare_sample(fake_ecg(12, 400, 5), 400, LEADS, trained.input)
    assert sample.microvolts.shape == (12, 500) and sample.microvolts.dtype == np.int16


# Which records are shown -------------------------------------------------------------------------


def some_test_predictions(truth, probability, decided=None, labels=("A", "B")):
    truth, probability = np.array(truth), np.array(probability, np.float32)
    decided = probability >= 0.5 if decided is None else np.array(decided)
    columns = {}
    for c, label in enumerate(labels):
        columns |= {
            f"label_{label}": truth[:, c], f"probability_{label}": probability[:, c],
            f"decision_{label}": decided[:, c].astype(int),
        }  # fmt: skip
    return pd.DataFrame(columns)


def test_examples_are_the_best_the_worst_the_least_certain_and_one_of_each_class():
    table = some_test_predictions(
        truth=[[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]],
        probability=[[0.9, 0.1], [0.7, 0.2], [0.8, 0.7], [0.2, 0.3], [0.6, 0.51]],
    )
    chosen = choose_example_records(table, ["A", "B"], {"A": 0.5, "B": 0.5}, seed=0)
    said = {row: [text for text in shows if "random" not in text] for row, shows in chosen.items()}
    assert {row: shows for row, shows in said.items() if shows} == {
        0: ["the most confident right decision"],
        2: ["the most confident false alarm: A"],
        3: ["the most clearly missed label: B"],
        4: ["the least certain decision"],
    }
    random = [text for shows in chosen.values() for text in shows if "random" in text]
    assert sorted(random) == [
        "drawn at random from 3 records of A", "drawn at random from 3 records of B",
    ]  # fmt: skip


def test_a_perfect_model_has_no_errors_to_show():
    table = some_test_predictions([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]])
    chosen = choose_example_records(table, ["A", "B"], {}, seed=0)
    said = "; ".join(text for shows in chosen.values() for text in shows)
    assert "false alarm" not in said and "missed" not in said
    assert "the least certain decision" in said


def test_a_record_that_shows_several_things_is_shown_once():
    table = some_test_predictions([[1, 0]], [[0.4, 0.6]])
    (shows,) = choose_example_records(table, ["A", "B"], {}, seed=0).values()
    assert shows == [
        "the most confident false alarm: B", "the most clearly missed label: A",
        "the least certain decision", "drawn at random from 1 record of A",
    ]  # fmt: skip


def test_the_commonest_of_many_classes_get_an_example_and_the_draw_follows_the_seed():
    labels, rng = [f"c{c}" for c in range(30)], np.random.default_rng(0)
    truth = rng.random((400, 30)) < np.linspace(0.3, 0.01, 30)
    table = some_test_predictions(truth, rng.random((400, 30)), labels=labels)
    draws = [choose_example_records(table, labels, {}, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    random = [text for shows in draws[0].values() for text in shows if "random" in text]
    assert len(random) == MOST_CLASSES_WITH_EXAMPLE
    assert {text.rpartition(" ")[2] for text in random} <= {f"c{c}" for c in range(12)}


# Examples of a run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(settings):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
        draw_coarsely(patch)
        return run_inference_examples(settings)


def test_examples_are_whole_finite_json_and_each_has_its_figure(settings, examples):
    text = examples_path(settings.workspace).read_text()
    assert json.loads(text) == examples and "NaN" not in text and "Infinity" not in text
    assert examples["disclaimer"] == DISCLAIMER and examples["labels"] == list(FIVE)
    figures = [example["figure"] for example in examples["examples"]]
    assert all((settings.workspace.figures_dir / name).stat().st_size for name in figures)
    assert len(set(figures)) == len(figures) >= 2


def test_examples_are_of_the_test_split_and_as_evaluated(settings, examples):
    table = pd.read_parquet(predictions_path(settings.workspace)).set_index("record")
    for example in examples["examples"]:
        row = table.loc[example["record"]]
        assert row["split"] == "test"
        for label in FIVE:
            assert example["probabilities"][label] == pytest.approx(
                row[f"probability_{label}"], abs=1e-6
            )
            assert (label in example["true_labels"]) == row[f"label_{label}"]
        assert example["is_right"] == (example["decisions"] == example["true_labels"])
        assert example["is_right"] == (not example["missed"] and not example["false_alarms"])


@pytest.fixture
def copied(settings, examples, tmp_path):
    """A copy of that workspace, for tests that change it."""
    root = shutil.copytree(settings.root, tmp_path / "copy")
    return settings.model_copy(update={"root": root})


@pytest.fixture
def drawn_names(monkeypatch):
    names, real = [], prediction.save_figure
    monkeypatch.setattr(prediction, "save_figure", lambda *a: names.append(a[2]) or real(*a))
    return names


def test_examples_are_skipped_until_a_figure_is_gone_or_the_seed_changes(
    copied, examples, drawn_names
):
    assert run_inference_examples(copied) == examples and drawn_names == []
    (copied.workspace.figures_dir / examples["examples"][0]["figure"]).unlink()
    again = run_inference_examples(copied)["examples"]
    assert [each["record"] for each in again] == [each["record"] for each in examples["examples"]]
    assert len(drawn_names) == len(again)
    drawn_names.clear()
    run_inference_examples(copied.model_copy(update={"seed": 5}))
    assert drawn_names[0] == "inference_example_01"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model", "the model has changed since it was evaluated"),
        ("manifest", "the store has changed since it was evaluated"),
    ],
)
def test_examples_of_what_has_changed_since_its_evaluation_are_refused(copied, name, message):
    stamp = copied.workspace.step_path("evaluate")
    write_json(stamp, read_json(stamp) | {name: "another"})
    with pytest.raises(DataError, match=f"{message}; run `einthoven evaluate` first"):
        run_inference_examples(copied.model_copy(update={"seed": 77}))


def test_a_model_that_was_not_evaluated_is_asked_to_be(copied):
    other = copied.model_copy(update={"run_name": "other"})
    with pytest.raises(CheckpointError, match="does not exist"):
        run_inference_examples(other)
    other.workspace.checkpoints_dir.mkdir(parents=True)
    shutil.copy(copied.workspace.best_model_path, other.workspace.best_model_path)
    with pytest.raises(DataError, match="has not been evaluated; run `einthoven evaluate` first"):
        run_inference_examples(other)


# The figure --------------------------------------------------------------------------------------

LONG = [f"a diagnosis with a long name {number:02d}" for number in range(44)]
DRAWN = {
    "five labels": ({label: 0.9 - c / 5 for c, label in enumerate(FIVE)}, ["MI", "AF"], ["MI"]),
    "none decided": (dict.fromkeys(FIVE, 0.1), [], ["MI"]),
    "many long labels": ({label: 1 / (1 + k) for k, label in enumerate(LONG)}, LONG[:6], LONG[3:9]),
    "truth not known": ({"NORM": 0.2, "AF": 0.8}, ["AF"], None),
    "one label": ({"NORM": 1.0}, ["NORM"], ["NORM"]),
}


def a_figure(case, n_leads=12, **changes):
    probabilities, decisions, true_labels = DRAWN[case]
    usual = {
        "thresholds": dict.fromkeys(probabilities, 0.5), "true_labels": true_labels,
        "leads_present": LEADS[:n_leads], "title": "ptb-xl/1, 60 years, female\nDrawn at random",
    }  # fmt: skip
    signal = fake_ecg(0, 100, 10)
    return visualize_prediction_sample(signal, 100, probabilities, decisions, **(usual | changes))


def words(figure):
    texts = [*figure.texts, *figure.axes[1].texts, *figure.axes[1].get_yticklabels()]
    return [text for text in texts if text.get_text()]


@pytest.mark.parametrize("n_leads", [12, 1])
@pytest.mark.parametrize("remarks", [(), ("the limb leads contradict each other " * 8,) * 3])
@pytest.mark.parametrize("case", DRAWN)
def test_no_word_touches_another_or_leaves_the_page(case, n_leads, remarks):
    figure = a_figure(case, n_leads, remarks=remarks)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in words(figure)]
    width, height = figure.get_size_inches() * figure.dpi
    for number, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    caption = figure.axes[0].texts[-2].get_window_extent(renderer)
    assert not any(caption.overlaps(box) for box in boxes)


def test_the_paper_stays_true_to_scale():
    figure = a_figure("five labels")
    inches, axes = figure.get_size_inches() * 25.4, figure.axes[0]
    box = axes.get_position()
    scale = (
        box.width * inches[0] / np.ptp(axes.get_xlim()),
        box.height * inches[1] / np.ptp(axes.get_ylim()),
    )
    assert scale == pytest.approx((1, 1), rel=1e-6)


def test_the_figure_says_what_was_decided_what_is_true_and_what_it_is_not():
    said = [text.get_text() for text in words(a_figure("five labels"))]
    assert {"Decided", "MI, AF", "True", "MI", "Result", "not true: AF", DISCLAIMER} <= set(said)
    assert "0.900  decided, true" in said and "0.700  decided, not true" in said
    said = [text.get_text() for text in words(a_figure("none decided"))]
    assert {"none of the labels", "missed: MI", "0.100  missed"} <= set(said)
    said = [text.get_text() for text in words(a_figure("truth not known"))]
    assert "True" not in said and "Result" not in said and "0.800  decided" in said


def test_bars_are_as_long_as_probabilities_and_thresholds_are_marked():
    probabilities = dict(zip(FIVE, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    figure = visualize_prediction_sample(
        fake_ecg(0, 100, 10), 100, probabilities, [], thresholds={"AF": 0.25}
    )
    bars = figure.axes[1]
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(list(probabilities.values()))
    assert [line.get_xdata()[0] for line in bars.lines] == [0.25]


def test_labels_that_matter_are_among_the_bars_of_many():
    shown = {label.get_text() for label in a_figure("many long labels").axes[1].get_yticklabels()}
    assert len(shown) == 10 and {f"a diagnosis with…me {n:02d}"[-4:] for n in range(9)} <= {
        name[-4:] for name in shown
    }


def test_a_run_on_another_device_is_asked_for_by_name(settings):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU")
    with pytest.raises(ConfigError, match="DEVICE is cuda"):
        load_best_model(settings.workspace.best_model_path, "cuda")
