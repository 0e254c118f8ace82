from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from einthoven.errors import ConfigError
from einthoven.labels.codes import canonical_codes, code_name
from einthoven.labels.mapping import coverage, format_coverage, mapping_rows
from einthoven.labels.others import ptb_class
from einthoven.labels.scp import SCP, SCP_STATEMENTS
from einthoven.labels.sets import LABEL_SETS, LabelSet, load_label_set, reduce_to_single
from einthoven.labels.snomed import CHALLENGE_2021, SNOMED
from einthoven.records import RecordInfo

N_CLASSES = {
    "five": 5, "superdiagnostic": 5, "subdiagnostic": 23, "diagnostic": 44, "form": 19,
    "rhythm": 12, "all": 71, "challenge-2021": 26,
}  # fmt: skip


def labels_of(label_set: str, *codes: str) -> tuple[str, ...]:
    return load_label_set(label_set).map_codes(codes).labels


def own_set(tmp_path: Path, text: str, encoding: str = "utf-8") -> LabelSet:
    path = tmp_path / "mine.csv"
    path.write_text(text, encoding=encoding)
    return load_label_set(str(path))


@pytest.fixture(scope="module")
def ptbxl_codes(shared_data: Path) -> list[list[str]]:
    table = pd.read_csv(shared_data / "ptb-xl" / "ptbxl_database.csv")
    return [
        [f"scp:{code}={likelihood:g}" for code, likelihood in ast.literal_eval(text).items()]
        for text in table["scp_codes"]
    ]


def counts_of(name: str, records: list[list[str]]) -> Counter[str]:
    label_set = load_label_set(name)
    counts: Counter[str] = Counter()
    for codes in records:
        counts.update(label_set.map_codes(codes).labels or ["none"])
    return counts


# Tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_classes"), N_CLASSES.items())
def test_label_set_has_its_published_number_of_classes(name: str, n_classes: int) -> None:
    label_set = load_label_set(name)
    assert len(set(label_set.labels)) == n_classes == len(label_set.labels)
    assert set(LABEL_SETS) == set(N_CLASSES)


def test_scp_table_equals_the_published_statements(shared_data: Path) -> None:
    path = shared_data / "ptb-xl" / "scp_statements.csv"
    table = pd.read_csv(path, index_col=0, dtype=str, keep_default_na=False)
    assert list(SCP) == list(table.index)
    for code, row in table.iterrows():
        kinds = "".join(
            kind[0].upper() for kind in ("diagnostic", "form", "rhythm") if row[kind] == "1.0"
        )
        published = (row["description"], kinds, row["diagnostic_class"], row["diagnostic_subclass"])
        assert SCP[str(code)][1:] == published


@pytest.mark.parametrize("year", ["2020", "2021"])
def test_snomed_table_holds_every_challenge_code(shared_data: Path, year: str) -> None:
    for kind in ("scored", "unscored"):
        path = shared_data / "tables" / f"evaluation-{year}" / f"dx_mapping_{kind}.csv"
        table = pd.read_csv(path, dtype=str)
        for _, row in table.iterrows():
            code = row.get("SNOMEDCTCode", row.get("SNOMED CT Code"))
            assert SNOMED[code][0] == row["Abbreviation"]


def test_snomed_table_holds_every_chapman_code(shared_data: Path) -> None:
    path = shared_data / "tables" / "chapman" / "ConditionNames_SNOMED-CT.csv"
    assert set(pd.read_csv(path, dtype=str)["Snomed_CT"]) <= set(SNOMED)


def test_challenge_classes_are_the_official_merges(shared_data: Path) -> None:
    with (shared_data / "challenge-2021" / "weights.csv").open(encoding="utf-8") as file:
        official = next(csv.reader(file))[1:]
    assert ["|".join(codes) for codes in CHALLENGE_2021.values()] == official


@pytest.mark.parametrize("name", ["five", "superdiagnostic", "challenge-2021"])
def test_every_code_of_the_real_headers_is_known(shared_data: Path, name: str) -> None:
    headers = [*(shared_data / "challenge-2021").rglob("*.hea")]
    codes = {
        f"snomed:{code}"
        for path in headers
        for line in re.findall(r"^#\s*Dx:(.*)$", path.read_text("latin-1"), re.MULTILINE)
        for code in line.strip().split(",")
    }
    assert len(codes) > 40
    assert load_label_set(name).map_codes(sorted(codes)).unmapped == ()


def test_every_code_of_the_real_sph_table_is_known(shared_data: Path) -> None:
    table = pd.read_csv(shared_data / "sph" / "metadata.csv", dtype=str)
    codes = [f"aha:{code}" for text in table["AHA_Code"] for code in text.split(";")]
    codes += [f"snomed:{code}" for text in table["SNOMEDCTCode"] for code in text.split(",")]
    assert load_label_set("five").map_codes(codes).unmapped == ()


# PTB-XL's own sets -------------------------------------------------------------------------------


def test_likelihood_zero_is_not_absence() -> None:
    assert labels_of("rhythm", "scp:AFIB=0") == ("AFIB",)
    assert labels_of("five", "scp:AFIB=0") == ("AF",)


def test_real_afib_survives_its_zero_likelihoods(ptbxl_codes: list[list[str]]) -> None:
    rhythm = counts_of("rhythm", ptbxl_codes)
    assert (rhythm["AFIB"], rhythm["AFLT"], rhythm["PACE"]) == (144, 13, 27)


def test_superclasses_count_as_the_data_say(ptbxl_codes: list[list[str]]) -> None:
    counts = counts_of("superdiagnostic", ptbxl_codes)
    assert counts == {"NORM": 999, "STTC": 491, "MI": 467, "CD": 422, "HYP": 240, "none": 45}


def test_five_counts_every_ptbxl_infarction_as_mi(ptbxl_codes: list[list[str]]) -> None:
    assert counts_of("five", ptbxl_codes)["MI"] == 467


def test_form_holds_the_four_statements_that_are_diagnostic_too() -> None:
    both = {statement.code for statement in SCP_STATEMENTS if statement.kinds == "DF"}
    assert both == {"NDT", "NST_", "DIG", "LNGQT"}
    assert both <= set(load_label_set("form").labels) & set(load_label_set("diagnostic").labels)


def test_subclass_is_not_the_statement_of_the_same_name() -> None:
    assert labels_of("subdiagnostic", "scp:ASMI=100") == ("AMI",)


def test_superclass_set_maps_faithful_equivalents_and_no_others() -> None:
    assert labels_of("superdiagnostic", "snomed:164867002", "snomed:164873001") == ("HYP", "MI")
    assert labels_of("superdiagnostic", "snomed:164884008") == ()
    assert labels_of("superdiagnostic", "cinc2017:N") == ()
    assert load_label_set("form").map_codes(["snomed:164889003"]).unmapped == ("snomed:164889003",)


# five --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        ("snomed:164890007", "AF"),  # flutter
        ("scp:AFLT=0", "AF"),
        ("cpsc2018:2", "AF"),
        ("aha:50+346", "AF"),
        ("snomed:164867002", "MI"),  # old
        ("snomed:57054005", "MI"),  # acute
        ("scp:INJAS=35", "MI"),
        ("aha:166", "MI"),
        ("aha:173", "MI BBB"),
        ("snomed:713426002", "BBB"),  # incomplete right
        ("snomed:251120003", "BBB"),  # incomplete left
        ("scp:IRBBB", "BBB"),
        ("aha:105", "BBB"),
        ("snomed:445118002", "OTHER"),  # fascicular
        ("scp:LPFB", "OTHER"),
        ("snomed:698252002", "OTHER"),  # unspecific delay
        ("scp:IVCD", "OTHER"),
        ("scp:ISC_=50", "OTHER"),  # ischemia is no infarction
        ("scp:PACE=0", "OTHER"),
        ("scp:NORM=80 scp:SR=0", "NORM"),
        ("scp:NORM=80 scp:PVC=0", "OTHER"),
        ("scp:SR=0", ""),  # no evidence of a normal ECG
        ("snomed:426783006", "NORM"),
        ("snomed:426783006 snomed:251146004", "OTHER"),
        ("snomed:426783006 snomed:999", ""),  # not alone: what 999 means is not known
        ("aha:1 snomed:426783006", "NORM"),
        ("aha:2", ""),
        ("cinc2017:O", "OTHER"),
        ("cinc2017:~", ""),
        ("ptb:healthy_control", "NORM"),
        ("snomed:164889003 snomed:59118001 snomed:164865005", "MI AF BBB"),
    ],
)
def test_five_maps(codes: str, labels: str) -> None:
    assert labels_of("five", *codes.split(" ")) == tuple(labels.split())


def test_challenge_2017_normal_is_normal_rhythm_only() -> None:
    mapped = load_label_set("five").map_codes(["cinc2017:N"])
    assert (mapped.labels, mapped.quality) == (("NORM",), "rhythm_only")
    assert load_label_set("five").map_codes(["cinc2017:A"]).quality == ""


def test_precedence_is_mi_af_bbb_other_norm() -> None:
    five = load_label_set("five")
    order = ["MI", "AF", "BBB", "OTHER", "NORM"]
    for position, label in enumerate(order):
        assert reduce_to_single(order[position:][::-1], five) == label
    assert reduce_to_single([], five) is None


def test_set_without_precedence_takes_an_only_label() -> None:
    superclasses = load_label_set("superdiagnostic")
    assert reduce_to_single(["MI"], superclasses) == "MI"
    assert reduce_to_single(["MI", "CD"], superclasses) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Myocardial infarction", "myocardial infarction"),
        ("MYOCARDIAL  INFARCTION", "myocardial infarction"),
        ("Acute infarction=infero-latera", "myocardial infarction"),
        ("Former infarction=no", ""),
        ("Healthy control", "healthy control"),
        ("Bundle branch block", "bundle branch block"),
        ("Bundle-Branch-Block", "bundle branch block"),
        ("Cardiomyopathy", "cardiomyopathy"),
        ("Heart failure (NYHA 3)", "heart failure"),
        ("Dysrhythmia", "dysrhythmia"),
        ("Disrhythmia", "dysrhythmia"),
        ("Hypertrophy", "myocardial hypertrophy"),
        ("Valvular heart disease", "valvular heart disease"),
        ("Myocarditis", "myocarditis"),
        ("Unstable angina", "miscellaneous"),
        ("Palpitation", "miscellaneous"),
        ("Diabetes mellitus", ""),
        ("Arterial Hypertension", ""),
        ("n/a", ""),
        ("gibberish", None),
    ],
)
def test_ptb_text_names_its_class(text: str, expected: str | None) -> None:
    assert ptb_class(text) == expected


# challenge-2021 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "label"),
    [
        ("snomed:733534002", "CLBBB|LBBB"),
        ("snomed:164909002", "CLBBB|LBBB"),
        ("snomed:59118001", "CRBBB|RBBB"),
        ("snomed:63593006", "PAC|SVPB"),
        ("snomed:17338001", "PVC|VPB"),
        ("scp:CLBBB=100", "CLBBB|LBBB"),
        ("scp:LOWT=0", "TAb"),
        ("aha:60+310", "PVC|VPB"),
        ("cpsc2018:5", "CRBBB|RBBB"),
        ("ptb:bundle branch block", "BBB"),
    ],
)
def test_challenge_2021_maps(code: str, label: str) -> None:
    assert labels_of("challenge-2021", code) == (label,)


def test_unscored_challenge_codes_are_known_and_mean_no_class() -> None:
    mapped = load_label_set("challenge-2021").map_codes(["snomed:164884008", "snomed:12345"])
    assert (mapped.labels, mapped.unmapped) == ((), ("snomed:12345",))


# A user's own ------------------------------------------------------------------------------------


def test_own_csv_keeps_its_order_and_maps_codes(tmp_path: Path) -> None:
    text = "code,label,quality\nscp:NORM,sound,\nsnomed:164889003,sick,sure\nscp:AFIB,sick,\n"
    label_set = own_set(tmp_path, text)
    assert (label_set.name, label_set.labels, label_set.single) == (
        "mine",
        ("sound", "sick"),
        False,
    )
    assert label_set.map_codes(["scp:AFIB=0", "scp:XX=1"]).labels == ("sick",)
    assert label_set.map_codes(["scp:XX=1"]).unmapped == ("scp:XX=1",)
    assert label_set.map_codes(["snomed:164889003"]).quality == "sure"


def test_own_csv_may_come_from_a_spreadsheet(tmp_path: Path) -> None:
    text = '"code";"label"\r\n"snomed:1";"a"\r\n;\r\n"snomed:2";"b"\r\n'
    assert own_set(tmp_path, text, "utf-8-sig").labels == ("a", "b")


def test_own_csv_lists_every_problem_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        own_set(tmp_path, "code,label\nsnomd:1,a\nscp:NORM,b\nAFIB,c\nscp:SR,a;b\nscp:SR\n")
    message = str(error.value)
    assert "line 2" in message and "did you mean snomed?" in message
    assert "line 4" in message and "line 5" in message and "line 6" in message
    assert "line 3" not in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "nothing"), ("a,b\n1,2\n", "code,label"), ("code,label\nscp:SR,x\n", "at least two")],
)
def test_own_csv_that_is_no_label_set_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        own_set(tmp_path, text)


def test_unknown_label_set_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean superdiagnostic"):
        load_label_set("superdiagnostc")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_label_set("nowhere.csv")


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ("AF", ("AF",)),
        ("norm", ("NORM",)),
        ("AFIB", ("AF",)),  # SCP-ECG's abbreviation
        ("LBBB", ("BBB",)),  # the Challenge's
        ("Sinus Bradycardia", ("OTHER",)),
        ("scp:IMI=50", ("MI",)),
        ("snomed:164890007", ("AF",)),
    ],
)
def test_own_labels_match_labels_codes_and_abbreviations(
    written: str, labels: tuple[str, ...]
) -> None:
    assert labels_of("five", f"own:{written}") == labels


def test_own_abbreviation_with_two_meanings_is_not_guessed_at() -> None:
    # Sinus rhythm alone is a normal ECG in the Challenge and no evidence of one in PTB-XL.
    mapped = load_label_set("five").map_codes(["own:sinus rhythm", "own:whatever"])
    assert mapped.unmapped == ("own:sinus rhythm", "own:whatever")


# Codes and coverage ------------------------------------------------------------------------------


def test_codes_are_compared_whatever_their_case_or_blanks() -> None:
    assert canonical_codes(" SCP:afib = 0") == ("scp:AFIB",)
    assert canonical_codes("aha:145+226") == ("aha:145", "aha:226")
    assert code_name("ptb:anything") == "" and code_name("nonsense") == ""


def test_coverage_counts_records_labels_and_unmapped_codes() -> None:
    infos = [
        RecordInfo("a", "1", "1", codes=("snomed:164889003", "snomed:999")),
        RecordInfo("a", "2", "2", codes=("snomed:999",)),
        RecordInfo("a", "3", "3", codes=("cinc2017:N",), problem="torn"),
    ]
    five = load_label_set("five")
    report = coverage(pd.DataFrame(mapping_rows(infos, "own", ".", five, True)), five)
    counts = {(kind, name): n for _, kind, name, n in report.itertuples(index=False)}
    assert counts["records", "found"] == 3
    assert (counts["records", "labelled"], counts["records", "unlabelled"]) == (2, 1)
    assert counts["records", "problems"] == counts["label", "AF"] == counts["label", "NORM"] == 1
    assert counts["unmapped code", "snomed:999"] == 2
    assert "no record has: MI, BBB, OTHER" in format_coverage(report)
    assert "snomed:999" in format_coverage(report)


def test_single_label_task_cannot_choose_without_precedence() -> None:
    infos = [RecordInfo("a", "1", "1", codes=("scp:IMI=1", "scp:LVH=1"))]
    rows = mapping_rows(infos, "own", ".", load_label_set("superdiagnostic"), True)
    assert (rows[0]["labels"], rows[0]["label_quality"]) == ("", "several_labels")
    rows = mapping_rows(infos, "own", ".", load_label_set("superdiagnostic"), False)
    assert rows[0]["labels"] == "HYP;MI"
