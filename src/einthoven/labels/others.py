"""The smaller code systems: AHA statements, Challenge 2017, CPSC-2018, PTB Diagnostic's text.

Sources: Mason, Hancock and Gettes 2007, "Recommendations for the standardization and
interpretation of the electrocardiogram, part II" (Circulation 115:1325-1332), tables 1, 2, 5 and
its modifiers, which SPH (Liu et al. 2022, doi:10.1038/s41597-022-01403-5) writes as
``primary+modifier``; ``REFERENCE.csv`` of Challenge 2017 (Clifford et al. 2017); CPSC-2018
(Liu et al. 2018); the headers of the PTB Diagnostic ECG Database (Bousseljot et al. 1995), whose
nine diagnostic classes are those of its page on PhysioNet.
"""

from __future__ import annotations

import re

# AHA statements ----------------------------------------------------------------------------------

# Primary (1-190), secondary (200-231) and convenience (500-503) statements.
AHA_STATEMENTS: dict[str, str] = {
    "1": "normal ECG",
    "2": "otherwise normal ECG",
    "3": "abnormal ECG",
    "4": "uninterpretable ECG",
    "10": "extremity electrode reversal",
    "11": "misplaced precordial electrode(s)",
    "12": "missing lead(s)",
    "13": "right-sided precordial electrode(s)",
    "14": "artifact",
    "15": "poor-quality data",
    "16": "posterior electrode(s)",
    "20": "sinus rhythm",
    "21": "sinus tachycardia",
    "22": "sinus bradycardia",
    "23": "sinus arrhythmia",
    "24": "sinoatrial block, type I",
    "25": "sinoatrial block, type II",
    "26": "sinus pause or arrest",
    "27": "uncertain supraventricular rhythm",
    "30": "atrial premature complex(es)",
    "31": "atrial premature complexes, nonconducted",
    "32": "retrograde atrial activation",
    "33": "wandering atrial pacemaker",
    "34": "ectopic atrial rhythm",
    "35": "ectopic atrial rhythm, multifocal",
    "36": "junctional premature complex(es)",
    "37": "junctional escape complex(es)",
    "38": "junctional rhythm",
    "39": "accelerated junctional rhythm",
    "40": "supraventricular rhythm",
    "41": "supraventricular complex(es)",
    "42": "bradycardia, nonsinus",
    "50": "atrial fibrillation",
    "51": "atrial flutter",
    "52": "ectopic atrial tachycardia, unifocal",
    "53": "ectopic atrial tachycardia, multifocal",
    "54": "junctional tachycardia",
    "55": "supraventricular tachycardia",
    "56": "narrow-QRS tachycardia",
    "60": "ventricular premature complex(es)",
    "61": "fusion complex(es)",
    "62": "ventricular escape complex(es)",
    "63": "idioventricular rhythm",
    "64": "accelerated idioventricular rhythm",
    "65": "fascicular rhythm",
    "66": "parasystole",
    "70": "ventricular tachycardia",
    "71": "ventricular tachycardia, unsustained",
    "72": "ventricular tachycardia, polymorphous",
    "73": "ventricular tachycardia, torsades de pointes",
    "74": "ventricular fibrillation",
    "75": "fascicular tachycardia",
    "76": "wide-QRS tachycardia",
    "80": "short PR interval",
    "81": "AV conduction ratio N:D",
    "82": "prolonged PR interval",
    "83": "second-degree AV block, Mobitz type I (Wenckebach)",
    "84": "second-degree AV block, Mobitz type II",
    "85": "2:1 AV block",
    "86": "AV block, varying conduction",
    "87": "AV block, advanced (high-grade)",
    "88": "AV block, complete (third-degree)",
    "89": "AV dissociation",
    "100": "aberrant conduction of supraventricular beat(s)",
    "101": "left anterior fascicular block",
    "102": "left posterior fascicular block",
    "104": "left bundle-branch block",
    "105": "incomplete right bundle-branch block",
    "106": "right bundle-branch block",
    "107": "intraventricular conduction delay",
    "108": "ventricular preexcitation",
    "109": "right atrial conduction abnormality",
    "110": "left atrial conduction abnormality",
    "111": "epsilon wave",
    "120": "right-axis deviation",
    "121": "left-axis deviation",
    "122": "right superior axis",
    "123": "indeterminate axis",
    "124": "electrical alternans",
    "125": "low voltage",
    "128": "abnormal precordial R-wave progression",
    "131": "abnormal P-wave axis",
    "140": "left atrial enlargement",
    "141": "right atrial enlargement",
    "142": "left ventricular hypertrophy",
    "143": "right ventricular hypertrophy",
    "144": "biventricular hypertrophy",
    "145": "ST deviation",
    "146": "ST deviation with T-wave change",
    "147": "T-wave abnormality",
    "148": "prolonged QT interval",
    "149": "short QT interval",
    "150": "prominent U waves",
    "151": "inverted U waves",
    "152": "TU fusion",
    "153": "ST-T change due to ventricular hypertrophy",
    "154": "Osborn wave",
    "155": "early repolarization",
    "160": "anterior MI",
    "161": "inferior MI",
    "162": "posterior MI",
    "163": "lateral MI",
    "165": "anteroseptal MI",
    "166": "extensive anterior MI",
    "173": "MI in presence of left bundle-branch block",
    "174": "right ventricular MI",
    "180": "atrial-paced complex(es) or rhythm",
    "181": "ventricular-paced complex(es) or rhythm",
    "182": "ventricular pacing of non-right ventricular apical origin",
    "183": "atrial-sensed ventricular-paced complex(es) or rhythm",
    "184": "AV dual-paced complex(es) or rhythm",
    "185": "failure to capture, atrial",
    "186": "failure to capture, ventricular",
    "187": "failure to inhibit, atrial",
    "188": "failure to inhibit, ventricular",
    "189": "failure to pace, atrial",
    "190": "failure to pace, ventricular",
    "200": "suggests acute pericarditis",
    "201": "suggests acute pulmonary embolism",
    "202": "suggests Brugada abnormality",
    "203": "suggests chronic pulmonary disease",
    "204": "suggests CNS disease",
    "205": "suggests digitalis effect",
    "206": "suggests digitalis toxicity",
    "207": "suggests hypercalcemia",
    "208": "suggests hyperkalemia",
    "209": "suggests hypertrophic cardiomyopathy",
    "210": "suggests hypocalcemia",
    "211": "suggests hypokalemia or drug effect",
    "212": "suggests hypothermia",
    "213": "suggests ostium primum ASD",
    "214": "suggests pericardial effusion",
    "215": "suggests sinoatrial disorder",
    "220": "consider acute ischemia",
    "221": "consider AV nodal reentry",
    "222": "consider AV reentry",
    "223": "consider genetic repolarization abnormality",
    "224": "consider high precordial lead placement",
    "225": "consider hypothyroidism",
    "226": "consider ischemia",
    "227": "consider left ventricular aneurysm",
    "228": "consider normal variant",
    "229": "consider pulmonary disease",
    "230": "consider dextrocardia",
    "231": "consider dextroposition",
    "500": "nonspecific ST-T abnormality",
    "501": "ST elevation",
    "502": "ST depression",
    "503": "LVH with ST-T changes",
}

# Modifiers add to a statement and are none of their own: borderline, possible, old, in a bigeminal
# pattern, depression, inversion ... (301-369), and comparisons with an earlier ECG (400-406).
AHA_MODIFIER = re.compile(r"3\d\d|40[0-6]")

# Challenge 2017 and CPSC-2018 --------------------------------------------------------------------

CINC2017: dict[str, str] = {
    "N": "normal rhythm",
    "A": "atrial fibrillation",
    "O": "other rhythm",
    "~": "too noisy to classify",
}

CPSC2018: dict[str, str] = {
    "1": "normal",
    "2": "atrial fibrillation",
    "3": "first-degree atrioventricular block",
    "4": "left bundle branch block",
    "5": "right bundle branch block",
    "6": "premature atrial contraction",
    "7": "premature ventricular contraction",
    "8": "ST-segment depression",
    "9": "ST-segment elevation",
}

# PTB Diagnostic's text ---------------------------------------------------------------------------

# The first pattern that is found in the text names its class. The nine published classes, the
# spellings around them, and what the additional diagnoses bring. "" as a class: the text is known
# and says nothing of the heart's electrical state.
PTB_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"^(no|none|n/?a|unknown|-)?$", ""),
    (r"(cerebral|brain|renal|pulmonary|splenic|stroke).*infarct", ""),
    (r"\binfarct|^(anterior|inferior|lateral|posterior).*\bmi$", "myocardial infarction"),
    (r"atrial (fibrillation|flutter)", "atrial fibrillation"),
    (r"fascicular|hemi-?block", "fascicular block"),
    (r"bundle[ -]?branch[ -]?block|\b[cil]?[lr]bbb\b", "bundle branch block"),
    (r"^healthy|^normal( control)?$", "healthy control"),
    (r"cardio-?myopath|^dcm$|^hcm$|^hocm$", "cardiomyopathy"),
    (r"heart failure|cardiac (failure|insufficiency)", "heart failure"),
    (r"d[iy]s?rh?yth?m|arr?h?yth?m|tachycardia|bradycardia|fibrillation|av[ -]?block|extrasyst"
     r"|sick sinus|wpw|wolff|pacemaker", "dysrhythmia"),
    (r"hypertroph", "myocardial hypertrophy"),
    (r"valv|aortic (stenosis|insuff|regurg)|mitral|tricuspid", "valvular heart disease"),
    (r"(myo|peri|endo)carditis", "myocarditis"),
    (r"angina|coronary|isch|aneurysm|palpitation|heart disease", "miscellaneous"),
    (r"miscellaneous|\bother\b", "miscellaneous"),
    (r"diabet|hypertension|hyper-?lip|hyper-?cholest|hyper-?tri|hyper-?uric|gout|obes|adipos"
     r"|insufficiency|struma|thyr|asthma|bronch|copd|pulmon|ulcer|gastr|stroke|arter|nicotin"
     r"|smok|renal|anem|anaem|thromb|hepat|carcin|cancer|tumou?r", ""),
)  # fmt: skip


def ptb_class(text: str) -> str | None:
    """The diagnostic class that a text of PTB Diagnostic names.

    Args:
        text: the reason for admission, an additional diagnosis, or ``"acute infarction=<where>"``.

    Returns:
        A class; empty where the text says nothing of the heart's electrical state; None where it is
        not known.

    >>> ptb_class("Myocardial infarction"), ptb_class("Bundle-Branch Block"), ptb_class("n/a")
    ('myocardial infarction', 'bundle branch block', '')
    >>> ptb_class("former infarction=no"), ptb_class("former infarction=anterior")
    ('', 'myocardial infarction')
    """
    words = " ".join(text.lower().replace("_", " ").split())
    _, equals, value = words.partition("=")
    if equals and re.fullmatch(PTB_PATTERNS[0][0], value.strip()):
        return ""
    for pattern, diagnosis in PTB_PATTERNS:
        if re.search(pattern, words):
            return diagnosis
    return None
