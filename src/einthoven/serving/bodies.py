"""What the API takes and gives as JSON, as types that check it and describe it."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from einthoven.errors import RecordError

# What is shown of a body that breaks its rules in more places.
MOST_BODY_ERRORS = 3
MICROVOLTS_PER = {"mV": 1000.0, "uV": 1.0}


class SignalBody(BaseModel):
    """A recording as plain numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    signal: list[list[float | None]] = Field(
        min_length=1, description="A row of samples per lead; null where there is no value"
    )
    fs: float = Field(gt=0, description="Sampling rate, hertz")
    leads: list[str] = Field(min_length=1, description="One name per row, such as II or V1")
    units: Literal["mV", "uV"] = Field("mV", description="Of the samples")

    @model_validator(mode="after")
    def _rows_fit(self) -> SignalBody:
        lengths = {len(row) for row in self.signal}
        if len(lengths) > 1:
            raise ValueError("the rows of signal differ in length")
        if len(self.signal) != len(self.leads):
            raise ValueError(
                f"signal has {len(self.signal)} rows and leads {len(self.leads)} names; give one "
                "name per row"
            )
        return self

    def millivolts(self) -> np.ndarray:
        """``(lead, sample)`` float32, NaN where there is no value."""
        scale = MICROVOLTS_PER[self.units] / 1000.0
        # Whatever is too large for float32 is refused as no ECG later on.
        with np.errstate(over="ignore"):
            return np.asarray(np.array(self.signal, np.float64) * scale, np.float32)


class PredictBody(SignalBody):
    """What ``/predict`` takes."""

    with_signal: bool = Field(False, description="Give the recording back, ready to be drawn")


class ExplainBody(SignalBody):
    """What ``/explain`` takes."""

    label: str | None = Field(None, description="What is explained; without it, the likeliest")
    method: str | None = Field(None, description="How; see /metadata for the methods there are")


BODIES: dict[str, type[SignalBody]] = {"predict": PredictBody, "explain": ExplainBody}


def body_from_json(kind: str, text: bytes) -> SignalBody:
    """Check a JSON body.

    Raises:
        RecordError: it breaks the rules, with the first few places.
    """
    try:
        return BODIES[kind].model_validate_json(text)
    except ValidationError as error:
        listed = error.errors(include_url=False, include_context=False, include_input=False)
        places = [_place_text(each["loc"], each["msg"]) for each in listed[:MOST_BODY_ERRORS]]
        more = f" (and {len(listed) - len(places)} more)" if len(listed) > len(places) else ""
        raise RecordError(f"the JSON body cannot be used: {'; '.join(places)}{more}") from None


def _place_text(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    what = message.removeprefix("Value error, ")
    return f"{where}: {what[:1].lower()}{what[1:]}" if where else what


# Answers ----------------------------------------------------------------------------------------


class ErrorAnswer(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="What is wrong and what to do")
    id: str | None = Field(None, description="Of an unknown error, as in the service's log")
    needs: list[str] | None = Field(
        None, description="What the file does not state and the request must: fs, units, leads"
    )


class ShownSignal(BaseModel):
    """A recording, ready to be drawn."""

    fs: float = Field(description="Hertz")
    leads: list[str] = Field(description="Those that are there, in standard order")
    computed: list[str] = Field(description="Those among them computed from two limb leads")
    microvolts: list[list[int | None]] = Field(description="A row per lead; null without a value")
    seconds: float = Field(description="How much is given; the start of a longer recording")


class PredictAnswer(BaseModel):
    """What the model says of one recording."""

    disclaimer: str
    probabilities: dict[str, float] = Field(description="Calibrated, by label")
    decisions: list[str] = Field(description="The labels that were decided")
    thresholds: dict[str, float] = Field(
        description="The probability from which each label is decided; empty where the likeliest is"
    )
    threshold_rule: str
    conformal: dict[str, list[str]] = Field(
        description="Stated coverage to the labels that cannot be excluded at it"
    )
    fs: float = Field(description="Of the recording, hertz")
    seconds: float = Field(description="Length of the recording")
    n_windows: int
    leads_present: list[str]
    steps: list[str] = Field(description="What was done to the signal")
    warnings: list[str] = Field(description="What may mislead the model, or a reader")
    format: str = Field(description="Of the file")
    remarks: list[str] = Field(description="What the reader of the file had to assume")
    model: str = Field(description="Digest of the model's file")
    signal: ShownSignal | None = None


class HealthAnswer(BaseModel):
    """How the service is."""

    status: Literal["ok"]
    needs_token: bool
    under_way: int = Field(description="Predictions and explanations that are being made")
    answered: int = Field(description="Predictions since the start")
    passes: int = Field(description="Forward passes that they shared")


PlainAnswer = dict[str, Any]
