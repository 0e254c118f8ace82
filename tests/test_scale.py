"""A store of any size opens in linear time and little memory; `benchmarks/scale.py` in small."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.audit import sketches as audit_sketches
from einthoven.audit.sketches import find_candidates
from einthoven.batches import lead_spread, list_windows, open_windows
from einthoven.chunks import plan_chunks, signal_settings
from einthoven.columns import (
    column_of_texts,
    digest_of_rows,
    number_few,
    number_lists,
    number_texts,
    read_columns,
    texts_of,
)
from einthoven.files import digest, read_json, write_json
from einthoven.labelling import read_mapping
from einthoven.split_records import (
    SplitRecords,
    read_split_facts,
    read_splits,
    rows_in_manifest,
    rows_of_records,
    write_splits,
)
from einthoven.splits import fold_split
from einthoven.store import open_store

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SIZES = (1_000, 10_000)


# As Python has it for a script that is run.
sys.path.append(str(BENCHMARKS))
scale = importlib.import_module("scale")
sparse_store = importlib.import_module("sparse_store")


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Sparse workspaces of each size."""
    folder = tmp_path_factory.mktemp("sparse")
    for n_records in SIZES:
        sparse_store.build_store(folder / str(n_records), n_records)
    return {n_records: folder / str(n_records) for n_records in SIZES}


# The benchmark -----------------------------------------------------------------------------------


def test_sparse_store_takes_less_than_a_tenth_of_its_size_on_disk(roots):
    shards = list((roots[10_000] / "artifacts/processed/records").glob("*.npy"))
    apparent = sum(path.stat().st_size for path in shards)
    assert apparent > 10_000 * 24_000
    if hasattr(shards[0].stat(), "st_blocks"):
        assert sum(path.stat().st_blocks * 512 for path in shards) < apparent / 10


@pytest.mark.parametrize("stage", ["check", "splits", "epoch"])
def test_stage_runs_on_a_sparse_store(stage, roots):
    told = scale.STAGES[stage][0](roots[1_000], 1_000)
    assert told["columns"]() > 0


@pytest.mark.parametrize("n_records", SIZES)
def test_every_planted_copy_is_found_and_nothing_else(n_records, roots):
    told = scale.STAGES["audit"][0](roots[n_records], n_records)
    assert told["n_planted"] == min(100, n_records // 100)
    assert (told["n_found"], told["n_false"]) == (told["n_planted"], 0)


def test_manifest_written_directly_is_the_one_that_prepare_makes(roots):
    root = roots[1_000]
    path = sparse_store.settings_of(root).workspace.manifest_path
    direct = pd.read_parquet(path)
    scale.STAGES["prepare"][0](root, 1_000)
    prepared = pd.read_parquet(path)
    for name in direct.columns.drop(["fold", "labels"]):
        assert direct[name].tolist() == prepared[name].tolist(), name
    assert direct["labels"].map(list).tolist() == prepared["labels"].map(list).tolist()


def test_benchmark_measures_each_stage_apart_and_keeps_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "SIZES", (1_000,))
    output = tmp_path / "scale.json"
    code = scale.run_benchmark(
        ["--max-records", "1000", "--stages", "splits", "--output", str(output)]
    )
    measured = read_json(output)["stages"]["splits"]["measured"]["1000"]
    assert measured["peak_mb"] > measured["columns_mb"] > 0 < measured["cpu_s"]
    assert code == 1
    assert read_json(output)["missed"] == ["splits: one size alone shows no growth"]


@pytest.mark.parametrize("words", [("--max-records", "-3"), ("--stages", "foo")])
def test_benchmark_that_would_measure_nothing_is_refused(words):
    with pytest.raises(SystemExit, match="2"):
        scale.run_benchmark(list(words))


def test_part_of_the_benchmark_does_not_take_the_place_of_its_result():
    assert scale.parse_options([]).output == scale.RESULT_PATH
    assert scale.parse_options(["--max-records", "100000"]).output == scale.PART_PATH


# Growth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_growth_exponent_is_the_power_of_a_power_law(power):
    sizes = np.array([1e4, 1e5, 1e6, 1e7])
    assert scale.growth_exponent(sizes, 3e-7 * sizes**power) == pytest.approx(power, abs=1e-9)


def made_up(power, megabytes, columns=0.0):
    """A stage whose time grows to a power, and what its memory is at each size."""
    sizes = (10_000, 100_000, 1_000_000)
    return {
        str(n): {"cpu_s": 1e-6 * n**power, "peak_mb": mb + columns * n, "columns_mb": columns * n}
        for n, mb in zip(sizes, megabytes, strict=True)
    }


@pytest.mark.parametrize(
    ("measured", "named"),
    [
        (made_up(2.0, (400, 400, 400)), "splits: CPU time grows .* power of 2.00; 1.1 is allowed"),
        (made_up(1.0, (400, 500, 900)), "splits: memory.* 2.25 times .*; 2 is allowed"),
    ],
)
def test_figure_beyond_its_bound_is_named_and_the_benchmark_fails(
    measured, named, tmp_path, capsys
):
    result = {"stages": {"splits": {"measured": measured}}}
    assert scale.judge(result, tmp_path / "scale.json") == 1
    assert any(pd.Series(result["missed"]).str.contains(named))
    assert "missed: splits" in capsys.readouterr().err


def test_linear_time_and_memory_of_columns_alone_are_within_bounds(tmp_path):
    result = {"stages": {"splits": {"measured": made_up(1.0, (400, 420, 500), columns=3e-4)}}}
    assert scale.judge(result, tmp_path / "scale.json") == 0
    assert read_json(tmp_path / "scale.json")["missed"] == []


def test_planted_copy_that_is_not_found_is_named():
    told = {"10000": {"n_found": 99, "n_planted": 100, "n_false": 2}}
    (missed,) = scale.missed_bounds({}, told)
    assert missed.startswith("audit: 99 of 100 planted copies found among 10,000 records, and 2")


# Rows looked at ----------------------------------------------------------------------------------


def test_audit_looks_at_each_sketch_a_bounded_number_of_times(roots, monkeypatch):
    monkeypatch.setattr(audit_sketches, "SKETCHES_PER_PART", 1024)
    n_keys: list[int] = []
    keys_of = audit_sketches._keys_of
    monkeypatch.setattr(
        audit_sketches, "_keys_of", lambda s: (n_keys.append(len(s)), keys_of(s))[1]
    )
    looked_at = []
    for n_records in SIZES:
        n_keys.clear()
        find_candidates(sparse_store.all_sketches(n_records))
        looked_at.append(sum(n_keys))
    # n log n: ten times the sketches are cut once or twice more, not ten times as often.
    assert looked_at[1] < 20 * looked_at[0]


def test_leads_of_a_large_split_are_measured_on_windows_at_even_distances(roots, monkeypatch):
    monkeypatch.setattr("einthoven.batches.MOST_WINDOWS_MEASURED", 100)
    store = open_store(sparse_store.settings_of(roots[1_000]).workspace)
    listed = list_windows(store, np.arange(1_000))
    source = open_windows(store, listed, scale.torch.device("cpu"), "streamed")
    every_tenth = list_windows(store, np.arange(0, 1_000, 10))
    few = open_windows(store, every_tenth, scale.torch.device("cpu"), "streamed")
    assert scale.torch.equal(lead_spread(source, listed), lead_spread(few, every_tenth))


def test_shared_disk_folder_is_listed_once_however_many_records_it_has(roots, monkeypatch):
    settings = sparse_store.settings_of(roots[10_000])
    mapping = read_mapping(settings.workspace.mapping_path)
    listed = []
    list_files = sys.modules["einthoven.chunks"]._list_files
    monkeypatch.setattr(
        "einthoven.chunks._list_files", lambda f: (listed.append(f), list_files(f))[1]
    )
    plan_chunks(mapping, np.arange(10_000), settings.archives_dir, signal_settings(settings))
    assert len(listed) == sparse_store.N_ARCHIVES


def test_what_is_wrong_with_a_chunks_files_is_told_again_when_it_is_made(roots, monkeypatch):
    monkeypatch.setattr("einthoven.chunks.LARGEST_FILE_BYTES", 1 << 20)
    settings = sparse_store.settings_of(roots[1_000])
    mapping = read_mapping(settings.workspace.mapping_path)
    (chunk, *_) = plan_chunks(
        mapping, np.arange(5), settings.archives_dir, signal_settings(settings)
    )
    reader, folder, path, problem = chunk.sources[3]
    assert (reader, path) == ("own", "records/part-00000.npy?003")
    assert folder == str(settings.archives_dir / "hospital-0") and "cut the recording" in problem


# Columns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_different", [1, 7, 5_000, 200_000])
def test_numbered_texts_are_those_of_pandas(n_different):
    chosen = np.random.default_rng(0).integers(0, n_different, 70_000)
    texts = pd.Series([f"patient {n}" for n in chosen])
    number, first = number_texts(texts_of(texts), len(texts))
    expected, names = pd.factorize(texts)
    assert np.array_equal(number, expected)
    assert texts.iloc[first].tolist() == list(names)


def test_texts_whose_hashes_agree_are_told_apart(monkeypatch):
    texts = pd.Series([f"patient {n % 300}" for n in range(1_000)])
    monkeypatch.setattr(pd.util, "hash_array", lambda values, **_: np.zeros(len(values), np.uint64))
    number, _ = number_texts(texts_of(texts), len(texts))
    assert np.array_equal(number, pd.factorize(texts)[0])


def test_no_texts_have_no_numbers():
    number, first = number_texts(texts_of(pd.Series([], dtype=str)), 0)
    assert len(number) == len(first) == 0


def test_few_values_are_numbered_in_the_order_of_their_first_row():
    values = pd.Series([f"shard-{n // 200}" for n in range(150_000)])
    number, names = number_few(values)
    assert number.dtype == np.uint16 and names[:2] == ["shard-0", "shard-1"]
    assert np.array_equal(number, np.arange(150_000) // 200)


def test_lists_are_numbered_whether_or_not_records_share_them():
    shared = ["MI", "AF"]
    numbers, lists = number_lists([shared, [], shared, ["AF"], ["MI", "AF"], []])
    assert numbers.tolist() == [0, 1, 0, 2, 0, 1]
    assert lists == [("MI", "AF"), (), ("AF",)]


def test_columns_are_read_as_pandas_reads_them(tmp_path):
    rows = {"name": ["a", "é", ""], "n": [1, 2, 3], "labels": [["MI"], [], ["AF", "MI"]]}
    table = pd.DataFrame(rows | {"share": [0.5, np.nan, 1.0]})
    table.attrs = {"fs": 100}
    table.to_parquet(tmp_path / "t.parquet")
    read, expected = read_columns(tmp_path / "t.parquet"), pd.read_parquet(tmp_path / "t.parquet")
    assert read.attrs == {"fs": 100} and read.dtypes.tolist() == expected.dtypes.tolist()
    assert read.map(str).equals(expected.map(str))


def test_equal_lists_of_labels_are_one_object_that_nobody_can_change(tmp_path):
    pd.DataFrame({"labels": [["MI"], ["AF"], ["MI"]]}).to_parquet(tmp_path / "t.parquet")
    labels = read_columns(tmp_path / "t.parquet")["labels"]
    assert labels[0] is labels[2] is not labels[1]
    with pytest.raises(ValueError, match="read-only"):
        labels[0][0] = "AF"


def test_column_is_changed_where_it_is_asked_to_be():
    texts = pd.Series([f"t{n}" for n in range(70_000)])
    changed = column_of_texts(texts_of(texts), len(texts), {0: "first", 69_999: "last"})
    assert changed[0] == "first" and changed[69_999] == "last"
    assert changed[1:-1].tolist() == texts[1:-1].tolist()


@pytest.mark.parametrize("texts", [[], [""], ["", "é", "", "日本"], [""] * 65_536 + ["end", ""]])
def test_column_of_texts_holds_what_it_was_made_of(texts):
    column = column_of_texts(texts_of(pd.Series(texts, dtype=str)), len(texts), {})
    assert column.tolist() == texts
    assert pd.Series(column).dtype == pd.Series(["a"]).dtype


def test_digest_in_pieces_is_the_digest():
    table = pd.DataFrame({"record": [f"a/{n}" for n in range(70_000)], "fold": 3})
    assert digest_of_rows(table) == digest(table.to_numpy().tolist())
    assert digest_of_rows(table[:0]) == digest([])


# Splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_records", [5, 70_000])
def test_rows_of_names_are_those_of_their_first_record(n_records):
    records = pd.Series([f"a/{n}" for n in range(n_records - 1)] + ["a/1"])
    assert rows_of_records(records, ["a/3", "none", "a/1", "a/3"]).tolist() == [3, -1, 1, 3]
    assert rows_of_records(records, []).tolist() == []


@pytest.fixture
def manifest():
    names = [f'a/é "{n}"' for n in range(9_000)]
    columns = {"record": names, "fold": np.arange(9_000) * 7 % 10 + 1, "duplicate_of": ""}
    return pd.DataFrame(columns | {"labels": [["MI"]] * 9_000})


def test_splits_are_written_as_any_json_and_read_back_as_rows(manifest, tmp_path):
    splits = {"seed": 0, "audit": {"pairs": [["a", "b"]]}, **fold_split(manifest)}
    write_splits(tmp_path / "rows.json", splits)
    write_json(tmp_path / "names.json", {name: value for name, value in splits.items()})
    assert (tmp_path / "rows.json").read_bytes() == (tmp_path / "names.json").read_bytes()
    read = read_splits(tmp_path / "rows.json", manifest)
    assert all(isinstance(read[name], SplitRecords) for name in ("train", "val", "test"))
    assert read == read_splits(tmp_path / "rows.json") == splits


@pytest.mark.parametrize("order", ["backwards", "shuffled"])
def test_records_of_a_split_are_found_in_any_order(order, manifest, tmp_path):
    names = manifest["record"].tolist()[::-1]
    if order == "shuffled":
        np.random.default_rng(0).shuffle(names)
    write_json(tmp_path / "s.json", {"train": names, "val": [], "test": []})
    read = read_splits(tmp_path / "s.json", manifest)
    assert read["train"].tolist() == names and len(read["val"]) == 0
    assert rows_in_manifest(manifest, read["train"]) is read["train"].rows


def test_splits_that_somebody_laid_out_otherwise_or_of_another_store_are_lists(manifest, tmp_path):
    splits = {"train": ['a/é "1"'], "val": [], "test": []}
    (tmp_path / "one_line.json").write_text(json.dumps(splits))
    write_json(tmp_path / "other.json", {"train": ["b/1"], "val": [], "test": []})
    for name in ("one_line.json", "other.json"):
        assert isinstance(read_splits(tmp_path / name, manifest)["train"], list)


def test_facts_of_splits_are_read_without_their_records(manifest, tmp_path):
    write_splits(tmp_path / "s.json", {"seed": 3, "audit": {"n_pairs": 2}, **fold_split(manifest)})
    facts = read_split_facts(tmp_path / "s.json")
    assert facts == {"seed": 3, "audit": {"n_pairs": 2}, "train": [], "val": [], "test": []}


def test_split_that_is_changed_is_a_list_from_then_on(manifest):
    records = SplitRecords(manifest, np.array([2, 5]))
    records.append("a/new")
    records.remove('a/é "2"')
    assert records == ['a/é "5"', "a/new"] and records.rows is None
    assert len(records) == 2 and records[1] == "a/new"
