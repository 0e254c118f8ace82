"""Which code means which label, for the label sets that span archives.

Each judgement is argued in ``docs/reference/labels.md``. A table maps a code, in the form of
`canonical_codes`, to labels; an empty tuple says that the code is known and means no label of the
set; a code that is not in the table is reported as not mapped.
"""

from __future__ import annotations

from einthoven.labels.codes import KNOWN_CODES, SILENT_CODE
from einthoven.labels.scp import SCP_STATEMENTS
from einthoven.labels.snomed import CHALLENGE_2021, SNOMED

CodeTable = dict[str, tuple[str, ...]]


def _coded(system: str, codes: str) -> frozenset[str]:
    return frozenset(f"{system}:{code}" for code in codes.split())


# What says nothing of an abnormality, and what says "normal" ------------------------------------

# Technical remarks, summaries without content, diagnoses outside the heart.
SAYS_NOTHING = frozenset(
    {SILENT_CODE, "cinc2017:~", "scp:SR"}
    | _coded("snomed", "251139008 102594003 266257000")
    | _coded("aha", "2 3 4 10 11 12 13 14 15 16 20 228")
)

NORMAL_ECG = frozenset(
    {"scp:NORM", "aha:1", "cpsc2018:1", "snomed:164854000", "ptb:healthy control"}
)

# Challenge and Chapman write sinus rhythm where they found nothing else: it means a normal ECG
# when, and only when, it stands alone.
NORMAL_IF_ALONE = frozenset({"snomed:426783006"})
ALONE_BESIDE = SAYS_NOTHING | NORMAL_ECG | NORMAL_IF_ALONE

# five --------------------------------------------------------------------------------------------

FIVE_LABELS = ("MI", "AF", "BBB", "NORM", "OTHER")
FIVE_PRECEDENCE = ("MI", "AF", "BBB", "OTHER", "NORM")

# Acute, old and of unsaid age alike. PTB-XL's own table has subendocardial injury (INJ..) in MI.
MI_CODES = frozenset(
    {f"scp:{statement.code}" for statement in SCP_STATEMENTS if statement.superclass == "MI"}
    | _coded("snomed", "164865005 164867002 57054005 54329005")
    | _coded("aha", "160 161 162 163 165 166 173 174")
    | {"ptb:myocardial infarction"}
)
# Flutter counts as fibrillation.
AF_CODES = frozenset(
    _coded("snomed", "164889003 164890007 195080001 426749004 282825002 314208002")
    | _coded("scp", "AFIB AFLT")
    | _coded("aha", "50 51")
    | {"cinc2017:A", "cpsc2018:2", "ptb:atrial fibrillation"}
)
BBB_CODES = frozenset(
    _coded("snomed", "6374002 733534002 164909002 251120003 713427006 59118001 713426002")
    | _coded("scp", "CLBBB ILBBB CRBBB IRBBB")
    | _coded("aha", "104 105 106 173")
    | {"cpsc2018:4", "cpsc2018:5", "ptb:bundle branch block"}
)
PTB_OTHER = frozenset(
    {
        "ptb:cardiomyopathy",
        "ptb:heart failure",
        "ptb:dysrhythmia",
        "ptb:fascicular block",
        "ptb:myocardial hypertrophy",
        "ptb:valvular heart disease",
        "ptb:myocarditis",
        "ptb:miscellaneous",
    }
)


def five_table() -> CodeTable:
    """Every known code in `five`: one of the named four, nothing, or else OTHER."""
    table: CodeTable = {code: ("OTHER",) for code in (*KNOWN_CODES, *sorted(PTB_OTHER))}
    table |= {code: () for code in SAYS_NOTHING}
    table |= {code: ("NORM",) for code in (*NORMAL_ECG, *NORMAL_IF_ALONE, "cinc2017:N")}
    for label, codes in (("BBB", BBB_CODES), ("AF", AF_CODES), ("MI", MI_CODES)):
        for code in codes:
            # AHA 173, infarction in the presence of left bundle-branch block, states both.
            both = table[code] if table.get(code) in (("BBB",), ("AF",)) else ()
            table[code] = (label, *both)
    return table


# PTB-XL's superclasses for other archives --------------------------------------------------------

# Only statements that PTB-XL counts as diagnostic have an equivalent; premature beats, ST
# depression, T-wave changes and rhythms are form or rhythm there and mean no superclass.
_SUPERCLASS_CODES: dict[str, frozenset[str]] = {
    "CD": frozenset(
        _coded(
            "snomed",
            "6374002 733534002 164909002 251120003 713427006 59118001 713426002 445118002 445211001"
            " 698252002 82226007 270492004 195042002 54016002 426183003 28189009 27885002 233917008"
            " 204384007 74390002 195060002",
        )
        | _coded("aha", "83 84 85 86 87 88 101 102 104 105 106 107 108 173")
        | _coded("cpsc2018", "3 4 5")
        | {"ptb:bundle branch block", "ptb:fascicular block"}
    ),
    "HYP": frozenset(
        _coded(
            "snomed",
            "164873001 89792004 266249003 67741000119109 446813000 446358003 195126007",
        )
        | _coded("aha", "140 141 142 143 144 503")
        | {"ptb:myocardial hypertrophy"}
    ),
    "MI": frozenset(code for code in MI_CODES if not code.startswith("scp:")),
    "NORM": (NORMAL_ECG | NORMAL_IF_ALONE) - {"scp:NORM"},
    "STTC": frozenset(
        _coded(
            "snomed", "428750005 55930002 111975006 164861001 413444003 413844008 426434006"
            " 425419005 425623009",
        )
        # The AHA codes that scp_statements.csv itself gives for NST_, LNGQT, DIG, ISC_ and ANEUR,
        # and the nonspecific ST-T changes.
        | _coded("aha", "145 146 148 153 205 220 226 227 500 503")
    ),
}  # fmt: skip


def superclass_table() -> CodeTable:
    """The other archives' codes in PTB-XL's superclasses."""
    others = [code for code in KNOWN_CODES if not code.startswith("scp:")]
    table: CodeTable = {code: () for code in (*others, *sorted(PTB_OTHER), SILENT_CODE)}
    table["ptb:atrial fibrillation"] = ()
    for label, codes in _SUPERCLASS_CODES.items():
        for code in codes:
            table[code] = (*table.get(code, ()), label)
    return table


# challenge-2021 ----------------------------------------------------------------------------------

# PTB-XL's statements as the Challenge's organisers translated them into its PTB-XL tranche, except
# that a ventricular premature complex is one of the class PVC|VPB here (there 164884008, unscored),
# and that SVARR, not a premature beat, is none (there SVPB).
_SCP_TO_CHALLENGE: dict[str, str] = {
    "AFIB": "AF", "AFLT": "AFL", "CLBBB": "CLBBB|LBBB", "CRBBB": "CRBBB|RBBB", "1AVB": "IAVB",
    "IRBBB": "IRBBB", "LAFB": "LAnFB", "LPR": "LPR", "LVOLT": "LQRSV", "LNGQT": "LQT",
    "IVCD": "NSIVCB", "SR": "NSR", "NORM": "NSR", "PAC": "PAC|SVPB", "PACE": "PR",
    "PVC": "PVC|VPB", "QWAVE": "QAb", "SARRH": "SA", "SBRAD": "SB", "STACH": "STach",
    "NDT": "TAb", "NT_": "TAb", "TAB_": "TAb", "LOWT": "TAb", "INVT": "TInv",
}  # fmt: skip
_AHA_TO_CHALLENGE: dict[str, tuple[str, ...]] = {
    "1": ("NSR",), "20": ("NSR",), "21": ("STach",), "22": ("SB",), "23": ("SA",),
    "30": ("PAC|SVPB",), "50": ("AF",), "51": ("AFL",), "60": ("PVC|VPB",), "82": ("LPR",),
    "101": ("LAnFB",), "104": ("CLBBB|LBBB",), "105": ("IRBBB",), "106": ("CRBBB|RBBB",),
    "107": ("NSIVCB",), "120": ("RAD",), "121": ("LAD",), "125": ("LQRSV",), "147": ("TAb",),
    "147+367": ("TAb", "TInv"), "148": ("LQT",), "173": ("CLBBB|LBBB",),
    "180": ("PR",), "181": ("PR",), "182": ("PR",), "183": ("PR",), "184": ("PR",),
}  # fmt: skip
_CHALLENGE_FROM_OTHERS: CodeTable = {
    "cpsc2018:1": ("NSR",), "cpsc2018:2": ("AF",), "cpsc2018:3": ("IAVB",),
    "cpsc2018:4": ("CLBBB|LBBB",), "cpsc2018:5": ("CRBBB|RBBB",), "cpsc2018:6": ("PAC|SVPB",),
    "cpsc2018:7": ("PVC|VPB",),
    "cinc2017:N": ("NSR",), "cinc2017:A": ("AF",),
    "ptb:bundle branch block": ("BBB",), "ptb:healthy control": ("NSR",),
}  # fmt: skip


def challenge_table() -> CodeTable:
    """Every known code in the 26 scored classes of Challenge 2021."""
    ptb = ("ptb:myocardial infarction", "ptb:atrial fibrillation", *sorted(PTB_OTHER), SILENT_CODE)
    table: CodeTable = {code: () for code in (*KNOWN_CODES, *ptb)}
    for label, codes in CHALLENGE_2021.items():
        table |= {f"snomed:{code}": (label,) for code in codes if code in SNOMED}
    table |= {f"scp:{code}": (label,) for code, label in _SCP_TO_CHALLENGE.items()}
    table |= {f"aha:{code}": labels for code, labels in _AHA_TO_CHALLENGE.items()}
    return table | _CHALLENGE_FROM_OTHERS
