"""SCP-ECG: the 71 statements of PTB-XL.

Source: ``scp_statements.csv`` of PTB-XL 1.0.3 (Wagner et al. 2020, doi:10.1038/s41597-020-0495-6),
its columns description, diagnostic, form, rhythm, diagnostic_class and diagnostic_subclass.
"""

from __future__ import annotations

from typing import NamedTuple


class ScpStatement(NamedTuple):
    """One statement.

    Attributes:
        code: as ``scp_codes`` of ``ptbxl_database.csv`` writes it.
        description: PTB-XL's words.
        kinds: any of D (diagnostic), F (form), R (rhythm).
        superclass, subclass: of diagnostic statements; empty otherwise.
    """

    code: str
    description: str
    kinds: str
    superclass: str
    subclass: str


SCP_STATEMENTS: tuple[ScpStatement, ...] = (
    ScpStatement("NDT", "non-diagnostic T abnormalities", "DF", "STTC", "STTC"),
    ScpStatement("NST_", "non-specific ST changes", "DF", "STTC", "NST_"),
    ScpStatement("DIG", "digitalis-effect", "DF", "STTC", "STTC"),
    ScpStatement("LNGQT", "long QT-interval", "DF", "STTC", "STTC"),
    ScpStatement("NORM", "normal ECG", "D", "NORM", "NORM"),
    ScpStatement("IMI", "inferior myocardial infarction", "D", "MI", "IMI"),
    ScpStatement("ASMI", "anteroseptal myocardial infarction", "D", "MI", "AMI"),
    ScpStatement("LVH", "left ventricular hypertrophy", "D", "HYP", "LVH"),
    ScpStatement("LAFB", "left anterior fascicular block", "D", "CD", "LAFB/LPFB"),
    ScpStatement("ISC_", "non-specific ischemic", "D", "STTC", "ISC_"),
    ScpStatement("IRBBB", "incomplete right bundle branch block", "D", "CD", "IRBBB"),
    ScpStatement("1AVB", "first degree AV block", "D", "CD", "_AVB"),
    ScpStatement(
        "IVCD", "non-specific intraventricular conduction disturbance (block)", "D", "CD", "IVCD"
    ),
    ScpStatement("ISCAL", "ischemic in anterolateral leads", "D", "STTC", "ISCA"),
    ScpStatement("CRBBB", "complete right bundle branch block", "D", "CD", "CRBBB"),
    ScpStatement("CLBBB", "complete left bundle branch block", "D", "CD", "CLBBB"),
    ScpStatement("ILMI", "inferolateral myocardial infarction", "D", "MI", "IMI"),
    ScpStatement("LAO/LAE", "left atrial overload/enlargement", "D", "HYP", "LAO/LAE"),
    ScpStatement("AMI", "anterior myocardial infarction", "D", "MI", "AMI"),
    ScpStatement("ALMI", "anterolateral myocardial infarction", "D", "MI", "AMI"),
    ScpStatement("ISCIN", "ischemic in inferior leads", "D", "STTC", "ISCI"),
    ScpStatement("INJAS", "subendocardial injury in anteroseptal leads", "D", "MI", "AMI"),
    ScpStatement("LMI", "lateral myocardial infarction", "D", "MI", "LMI"),
    ScpStatement("ISCIL", "ischemic in inferolateral leads", "D", "STTC", "ISCI"),
    ScpStatement("LPFB", "left posterior fascicular block", "D", "CD", "LAFB/LPFB"),
    ScpStatement("ISCAS", "ischemic in anteroseptal leads", "D", "STTC", "ISCA"),
    ScpStatement("INJAL", "subendocardial injury in anterolateral leads", "D", "MI", "AMI"),
    ScpStatement("ISCLA", "ischemic in lateral leads", "D", "STTC", "ISCA"),
    ScpStatement("RVH", "right ventricular hypertrophy", "D", "HYP", "RVH"),
    ScpStatement("ANEUR", "ST-T changes compatible with ventricular aneurysm", "D", "STTC", "STTC"),
    ScpStatement("RAO/RAE", "right atrial overload/enlargement", "D", "HYP", "RAO/RAE"),
    ScpStatement("EL", "electrolytic disturbance or drug (former EDIS)", "D", "STTC", "STTC"),
    ScpStatement("WPW", "Wolf-Parkinson-White syndrome", "D", "CD", "WPW"),
    ScpStatement("ILBBB", "incomplete left bundle branch block", "D", "CD", "ILBBB"),
    ScpStatement("IPLMI", "inferoposterolateral myocardial infarction", "D", "MI", "IMI"),
    ScpStatement("ISCAN", "ischemic in anterior leads", "D", "STTC", "ISCA"),
    ScpStatement("IPMI", "inferoposterior myocardial infarction", "D", "MI", "IMI"),
    ScpStatement("SEHYP", "septal hypertrophy", "D", "HYP", "SEHYP"),
    ScpStatement("INJIN", "subendocardial injury in inferior leads", "D", "MI", "IMI"),
    ScpStatement("INJLA", "subendocardial injury in lateral leads", "D", "MI", "AMI"),
    ScpStatement("PMI", "posterior myocardial infarction", "D", "MI", "PMI"),
    ScpStatement("3AVB", "third degree AV block", "D", "CD", "_AVB"),
    ScpStatement("INJIL", "subendocardial injury in inferolateral leads", "D", "MI", "IMI"),
    ScpStatement("2AVB", "second degree AV block", "D", "CD", "_AVB"),
    ScpStatement("ABQRS", "abnormal QRS", "F", "", ""),
    ScpStatement("PVC", "ventricular premature complex", "F", "", ""),
    ScpStatement("STD_", "non-specific ST depression", "F", "", ""),
    ScpStatement("VCLVH", "voltage criteria (QRS) for left ventricular hypertrophy", "F", "", ""),
    ScpStatement("QWAVE", "Q waves present", "F", "", ""),
    ScpStatement("LOWT", "low amplitude T-waves", "F", "", ""),
    ScpStatement("NT_", "non-specific T-wave changes", "F", "", ""),
    ScpStatement("PAC", "atrial premature complex", "F", "", ""),
    ScpStatement("LPR", "prolonged PR interval", "F", "", ""),
    ScpStatement("INVT", "inverted T-waves", "F", "", ""),
    ScpStatement("LVOLT", "low QRS voltages in the frontal and horizontal leads", "F", "", ""),
    ScpStatement("HVOLT", "high QRS voltage", "F", "", ""),
    ScpStatement("TAB_", "T-wave abnormality", "F", "", ""),
    ScpStatement("STE_", "non-specific ST elevation", "F", "", ""),
    ScpStatement("PRC(S)", "premature complex(es)", "F", "", ""),
    ScpStatement("SR", "sinus rhythm", "R", "", ""),
    ScpStatement("AFIB", "atrial fibrillation", "R", "", ""),
    ScpStatement("STACH", "sinus tachycardia", "R", "", ""),
    ScpStatement("SARRH", "sinus arrhythmia", "R", "", ""),
    ScpStatement("SBRAD", "sinus bradycardia", "R", "", ""),
    ScpStatement("PACE", "normal functioning artificial pacemaker", "R", "", ""),
    ScpStatement("SVARR", "supraventricular arrhythmia", "R", "", ""),
    ScpStatement("BIGU", "bigeminal pattern (unknown origin, SV or Ventricular)", "R", "", ""),
    ScpStatement("AFLT", "atrial flutter", "R", "", ""),
    ScpStatement("SVTAC", "supraventricular tachycardia", "R", "", ""),
    ScpStatement("PSVT", "paroxysmal supraventricular tachycardia", "R", "", ""),
    ScpStatement("TRIGU", "trigeminal pattern (unknown origin, SV or Ventricular)", "R", "", ""),
)

SCP: dict[str, ScpStatement] = {statement.code: statement for statement in SCP_STATEMENTS}
