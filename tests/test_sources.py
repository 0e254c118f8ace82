"""The list of sources: complete, consistent with the readers, and the page says the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from einthoven.errors import ConfigError
from einthoven.readers.challenge import CHALLENGE_FOLDERS
from einthoven.readers.registry import READERS
from einthoven.sources import NOT_OFFERED, SOURCES, find_source, source_address

PROJECT = Path(__file__).resolve().parents[1]
S3 = "https://physionet-open.s3.amazonaws.com"


def test_every_reader_of_a_published_archive_has_a_source():
    assert {source.reader for source in SOURCES.values()} == READERS.keys() - {"own"}


def test_every_tranche_that_the_reader_knows_has_a_source():
    named = {name.removeprefix("challenge-2021-") for name in SOURCES if "challenge-2021-" in name}
    assert named == set(CHALLENGE_FOLDERS.values())


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_source_says_all_that_a_user_needs(source):
    assert source.title and source.citation and source.licence and source.version
    assert re.fullmatch(r"10\.\d{4,9}/\S+", source.doi)
    assert source.page.startswith(("https://", "http://2018.icbeb.org"))
    assert bool(source.project) != bool(source.files)
    assert (source.size_gb is None) == (source.size_from == "unverified")
    assert source.size_from in ("stated", "estimated", "unverified")


def test_what_is_verified_by_md5_has_the_sum_of_every_file():
    for source in SOURCES.values():
        sums = [file.md5 for file in source.files]
        assert all(sums) if "MD5" in source.verified else not any(sums)
        assert all(re.fullmatch(r"[0-9a-f]{32}", md5) for md5 in filter(None, sums))


@pytest.mark.parametrize("year", [2020, 2021])
def test_a_challenge_is_the_sum_of_its_tranches(year):
    whole = SOURCES[f"challenge-{year}"]
    parts = [source for name, source in SOURCES.items() if name.startswith(f"{whole.name}-")]
    assert sum(part.records for part in parts) == whole.records
    # A page that counts a gigabyte as 2^30 bytes differs by 7 %.
    assert sum(part.size_gb for part in parts) == pytest.approx(whole.size_gb, rel=0.03)


@pytest.mark.parametrize(
    ("name", "mirror", "address"),
    [
        ("ptb-xl", "", "https://physionet.org/files/ptb-xl/1.0.3/"),
        ("chapman", "", "https://physionet.org/files/ecg-arrhythmia/1.0.0/"),
        ("challenge-2021-georgia", f"{S3}/", f"{S3}/challenge-2021/1.0.3/"),
        ("ptbdb", "https://m.org/{project}-{version}", "https://m.org/ptbdb-1.0.0/"),
        ("sph", "http://localhost:80", "http://localhost:80/sph/"),
    ],
)
def test_a_mirror_takes_the_place_of_the_host(name, mirror, address):
    assert source_address(SOURCES[name], mirror) == address


def test_a_name_that_is_not_known_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean challenge-2021-georgia\?"):
        find_source("challenge-2021-gorgia")


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_what_is_not_offered_says_how_it_is_had(name):
    with pytest.raises(ConfigError, match=r"cannot be downloaded for you: .*https://"):
        find_source(name)


def test_the_page_has_the_table_of_the_sources():
    tool = PROJECT / "tools" / "sources_table.py"
    done = subprocess.run(
        [sys.executable, tool, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_sources_are_plain_data():
    from dataclasses import asdict

    assert json.loads(json.dumps([asdict(source) for source in SOURCES.values()]))
