"""Where the published archives come from: addresses, sizes, licences, citations, access rules.

Data, and nothing is fetched here. What could not be established from the publishers' own pages, or
from programs that quote them, is said to be so: a size is ``"stated"`` by the archive's page or
``"estimated"`` from its number of records and their length, and what an archive gives to verify
files against stands in ``verified``.
"""

from __future__ import annotations

from dataclasses import dataclass

from einthoven.errors import ConfigError
from einthoven.settings import did_you_mean

PHYSIONET_FILES = "https://physionet.org/files"
# The same files, kept by PhysioNet on Amazon's open data: s3://physionet-open/<project>/<version>.
PHYSIONET_S3 = "https://physionet-open.s3.amazonaws.com"

SHA256_LIST = "each file by the archive's SHA256SUMS.txt"
ZIP_CRC = (
    "length, the CRC of each file in the zip, and its table of records; its publisher gives no "
    "checksum"
)
FIGSHARE_MD5 = "the MD5 that figshare gives of each file, and its table of records"


@dataclass(frozen=True)
class SourceFile:
    """A file with an address of its own, for archives that give no list of their files.

    ``home`` is the folder that its content belongs in, where it is a zip or tar to be unpacked;
    ``md5`` is what its publisher says that its bytes give, where they say it.
    """

    name: str
    url: str
    home: str = ""
    md5: str = ""


@dataclass(frozen=True)
class Source:
    """A published archive.

    Attributes:
        name: what it is called in tables, and on the command line.
        reader: a key of `READERS`.
        records: published number of records.
        size_gb: gigabytes on disk (10^9 bytes; PhysioNet's pages count in 2^30), or None where
            unknown.
        size_from: ``"stated"`` or ``"estimated"``.
        project: PhysioNet's name of the project; empty where it is published elsewhere.
        part: the files of this folder alone, for a tranche of a larger project.
        folder: below `DATASET_DIR`, so that the reader finds it.
        files: what is fetched where there is no list of files.
        skipped: names in the list that no reader needs.
        listing: names of tables that list records; a subset cuts them down to its own.
        signs: names of which a zip of the archive holds at least one.
        rates: hertz, where an archive holds each record at several.
    """

    name: str
    title: str
    reader: str
    version: str
    records: int
    size_gb: float | None
    size_from: str
    licence: str
    citation: str
    doi: str
    page: str
    folder: str
    verified: str = SHA256_LIST
    access: str = "open"
    project: str = ""
    part: str = ""
    files: tuple[SourceFile, ...] = ()
    skipped: tuple[str, ...] = ()
    listing: tuple[str, ...] = ()
    rates: tuple[int, ...] = ()
    signs: tuple[str, ...] = ()


# PhysioNet -------------------------------------------------------------------------------------

_REYNA = (
    "Reyna et al.: Will Two Do? Varying Dimensions in Electrocardiography: the PhysioNet/Computing "
    "in Cardiology Challenge 2021 (Computing in Cardiology 2021)"
)
_PEREZ_ALDAY = (
    "Perez Alday et al.: Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology "
    "Challenge 2020 (Physiological Measurement 41, 2020)"
)
# Packed copies of what lies beside them, and other people's programs.
_PACKED = ("*.zip", "*.tar.gz", "*.tgz", "sources/*", "papers/*", "*.pdf")


# Tranches are handed round on their own, too: their folder, its g1, g2 ... or records alone.
_CHALLENGE_SIGNS = (
    "*/g[0-9]*/*.hea", "g[0-9]*/*.hea", "[AQISEHJ]*[0-9].hea", "WFDB_*", "Training_*",
)  # fmt: skip


def _challenge_sources(
    year: int,
    version: str,
    citation: str,
    doi: str,
    tranches: dict[str, tuple[str, int, float]],
    stated_gb: float | None = None,
) -> tuple[Source, ...]:
    """The Challenge as a whole, and each of its tranches: folder, records, gigabytes."""
    project = f"challenge-{year}"
    records = sum(count for _, count, _ in tranches.values())
    whole = stated_gb or round(sum(size for *_, size in tranches.values()), 1)
    parts = {"": ("", records, whole)} | tranches
    return tuple(
        Source(
            name=f"{project}-{tranche}" if tranche else project,
            title=f"PhysioNet/CinC Challenge {year}" + (f", {tranche}" if tranche else ", all"),
            reader="challenge", version=version, records=count, size_gb=size,
            size_from="estimated" if tranche or not stated_gb else "stated", licence="CC BY 4.0",
            citation=citation, doi=doi,
            page=f"https://physionet.org/content/{project}/{version}/", folder=project,
            project=project, part=f"training/{folder}/" if tranche else "", skipped=_PACKED,
            signs=(f"training/{folder or '*'}/*.hea", *_CHALLENGE_SIGNS),
        )
        for tranche, (folder, count, size) in parts.items()
    )  # fmt: skip


_TRANCHES_2020 = {
    "cpsc-2018": ("cpsc_2018", 6_877, 1.3),
    "cpsc-2018-extra": ("cpsc_2018_extra", 3_453, 0.7),
    "st-petersburg-incart": ("st_petersburg_incart", 74, 0.8),
    "ptb": ("ptb", 516, 1.4),
    "ptb-xl": ("ptb-xl", 21_837, 2.6),
    "georgia": ("georgia", 10_344, 1.2),
}
_TRANCHES_2021 = _TRANCHES_2020 | {
    "chapman-shaoxing": ("chapman_shaoxing", 10_247, 1.2),
    "ningbo": ("ningbo", 34_905, 4.2),
}

_PHYSIONET_SOURCES = (
    Source(
        "ptb-xl", "PTB-XL", "ptb-xl", "1.0.3", 21_799, 3.2, "estimated", "CC BY 4.0",
        "Wagner et al.: PTB-XL, a large publicly available electrocardiography dataset "
        "(Scientific Data 7:154, 2020)",
        "10.13026/kfzx-aw45", "https://physionet.org/content/ptb-xl/1.0.3/", "ptb-xl",
        project="ptb-xl", listing=("ptbxl_database.csv",), rates=(100, 500), skipped=_PACKED,
        signs=("ptbxl_database.csv", "records100/*", "records500/*"),
    ),
    Source(
        "ptbdb", "PTB Diagnostic ECG Database", "ptbdb", "1.0.0", 549, 1.8, "estimated",
        "ODC-BY 1.0",
        "Bousseljot, Kreiseler, Schnabel: Nutzung der EKG-Signaldatenbank CARDIODAT der PTB über "
        "das Internet (Biomedizinische Technik 40, 1995)",
        "10.13026/C28C71", "https://physionet.org/content/ptbdb/1.0.0/", "ptbdb",
        project="ptbdb", listing=("RECORDS",), skipped=_PACKED,
        signs=("patient[0-9][0-9][0-9]/*",),
    ),
    Source(
        "challenge-2017", "PhysioNet/CinC Challenge 2017", "challenge-2017", "1.0.0", 8_528, 0.2,
        "estimated", "ODC-BY 1.0",
        "Clifford et al.: AF Classification from a Short Single Lead ECG Recording: the PhysioNet/"
        "Computing in Cardiology Challenge 2017 (Computing in Cardiology 2017)",
        "10.22489/CinC.2017.065-469", "https://physionet.org/content/challenge-2017/1.0.0/",
        "challenge-2017", project="challenge-2017", listing=("*REFERENCE*.csv",),
        # The validation set repeats 300 of the training records.
        skipped=(*_PACKED, "validation/*", "sample2017/*"),
        signs=("REFERENCE-v3.csv", "training/A*.hea", "training2017/*", "A[0-9]*.hea"),
    ),
    Source(
        "chapman", "Chapman-Shaoxing-Ningbo", "chapman", "1.0.0", 45_152, 5.5, "stated",
        "CC BY 4.0",
        "Zheng, Guo, Chu: A large scale 12-lead electrocardiogram database for arrhythmia study "
        "(PhysioNet 2022); Zheng et al.: Optimal Multi-Stage Arrhythmia Classification Approach "
        "(Scientific Reports 10:2898, 2020)",
        "10.13026/wgex-er52", "https://physionet.org/content/ecg-arrhythmia/1.0.0/", "chapman",
        project="ecg-arrhythmia", skipped=_PACKED, signs=("WFDBRecords/*",),
    ),
    *_challenge_sources(2021, "1.0.3", _REYNA, "10.13026/34va-7q14", _TRANCHES_2021, 13.5),
    *_challenge_sources(2020, "1.0.2", _PEREZ_ALDAY, "10.13026/dvyd-kd57", _TRANCHES_2020),
)  # fmt: skip

# Elsewhere -------------------------------------------------------------------------------------

_CPSC_FILES = "http://hhbucket.oss-cn-hongkong.aliyuncs.com"
_FIGSHARE_FILES = "https://springernature.figshare.com/ndownloader/files"

_OTHER_SOURCES = (
    Source(
        "cpsc-2018", "China Physiological Signal Challenge 2018", "cpsc-2018", "unnumbered", 6_877,
        None, "unverified", "unverified",
        "Liu et al.: An Open Access Database for Evaluating the Algorithms of Electrocardiogram "
        "Rhythm and Morphology Abnormality Detection (J. Medical Imaging and Health Informatics "
        "8, 2018)",
        "10.1166/jmihi.2018.2442", "http://2018.icbeb.org/Challenge.html", "cpsc-2018",
        verified=ZIP_CRC, listing=("REFERENCE.csv",),
        signs=("TrainingSet[0-9]/*", "A[0-9][0-9][0-9][0-9].mat", "*/A[0-9][0-9][0-9][0-9].mat"),
        files=(
            SourceFile("REFERENCE.csv", "http://2018.icbeb.org/file/REFERENCE.csv"),
            *(
                SourceFile(f"{name}.zip", f"{_CPSC_FILES}/{name}.zip", home=name)
                for name in ("TrainingSet1", "TrainingSet2", "TrainingSet3")
            ),
        ),
    ),
    Source(
        "sph", "Shandong Provincial Hospital", "sph", "1", 25_770, 2.3, "stated",
        "unverified: CC0 is reported of the files, CC BY 4.0 of the article",
        "Liu et al.: A large-scale multi-label 12-lead electrocardiogram database with "
        "standardized diagnostic statements (Scientific Data 9:272, 2022)",
        "10.1038/s41597-022-01403-5", "https://doi.org/10.6084/m9.figshare.c.5779802.v1",
        "sph", verified=FIGSHARE_MD5, listing=("metadata.csv",),
        signs=("records/*.h5", "metadata.csv"),
        files=(
            SourceFile(
                "metadata.csv", f"{_FIGSHARE_FILES}/34793152",
                md5="8ef8e8789059a585c89c5302c7891909",
            ),
            SourceFile(
                "code.csv", f"{_FIGSHARE_FILES}/32630954", md5="9fafec6cc6e1ef8117e2964116654d05"
            ),
            # Its name on figshare; it is a tar that nothing has packed.
            SourceFile(
                "records.tar.gz", f"{_FIGSHARE_FILES}/32630684", home="records",
                md5="0beef976f54cf0a95fac9f45bb157950",
            ),
        ),
    ),
)  # fmt: skip

SOURCES = {source.name: source for source in (*_PHYSIONET_SOURCES, *_OTHER_SOURCES)}

# Archives that people ask for and that are not offered, with the way to have them.
NOT_OFFERED = {
    "code": (
        "the full CODE data set is given out on request to its owners, with their approval "
        "(Ribeiro et al., https://doi.org/10.1038/s41467-020-15432-4). Once you have it, put it in "
        "the data folder with a labels.csv"
    ),
    "code-15": (
        "no reader knows its HDF5 files yet; it is open at https://doi.org/10.5281/zenodo.4916206. "
        "Turn its records into .npy files and list them in a labels.csv"
    ),
    "mimic-iv-ecg": (
        "no reader knows it, and its diagnoses are part of MIMIC-IV, which needs a credentialed "
        "PhysioNet account, training and a signed agreement (https://physionet.org/content/"
        "mimic-iv-ecg/). Once you have both, list the records in a labels.csv"
    ),
    "uk-biobank": (
        "it is given to registered researchers for approved projects only "
        "(https://www.ukbiobank.ac.uk). Once you have it, put its XML files through "
        "`einthoven predict`, or list converted ones in a labels.csv"
    ),
}


def find_source(name: str) -> Source:
    """The source of this name.

    Raises:
        ConfigError: there is none, or it cannot be fetched by a program; says how to get it.

    >>> find_source("ptb-xl").version
    '1.0.3'
    """
    if name in SOURCES:
        return SOURCES[name]
    if name in NOT_OFFERED:
        raise ConfigError(
            f"{name} cannot be downloaded for you: {NOT_OFFERED[name]}. (What its owners ask for "
            "was not verified with them; their page decides.)"
        )
    hint = did_you_mean(name.lower(), [*SOURCES, *NOT_OFFERED])
    raise ConfigError(f"no archive {name!r} is known{hint} (`einthoven archives` lists them)")


def source_address(source: Source, mirror: str = "") -> str:
    """The address below which an archive's files lie; files of their own have ``<name>/`` there.

    Args:
        mirror: takes the place of the publisher's host; ``{project}`` and ``{version}`` in it are
            filled in, and are added where it has neither.

    >>> source_address(SOURCES["ptb-xl"])
    'https://physionet.org/files/ptb-xl/1.0.3/'
    >>> source_address(SOURCES["ptb-xl"], "https://m.org/{project}-{version}")
    'https://m.org/ptb-xl-1.0.3/'
    """
    base = mirror.rstrip("/") or PHYSIONET_FILES
    project = source.project or source.name
    if "{project}" in base or "{version}" in base:
        base = base.replace("{project}", project).replace("{version}", source.version)
        return f"{base}/"
    return f"{base}/{project}/{source.version}/" if source.project else f"{base}/{project}/"


def size_words(source: Source) -> str:
    """Gigabytes, with a tilde where they are estimated.

    >>> [size_words(SOURCES[name]) for name in ("chapman", "ptb-xl", "cpsc-2018")]
    ['5.5 GB', '~3.2 GB', 'unverified']
    """
    if source.size_gb is None:
        return "unverified"
    return ("" if source.size_from == "stated" else "~") + f"{source.size_gb:g} GB"
