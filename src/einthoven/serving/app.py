"""The application: which address gives what."""

# FastAPI reads the types of the functions below when they are made, and these types are imported
# within `create_app`: annotations must not be put off, so this module has no __future__ import.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven import __version__
from einthoven.errors import ConfigError
from einthoven.serving.bodies import (
    ErrorAnswer,
    ExplainBody,
    HealthAnswer,
    PlainAnswer,
    PredictAnswer,
    PredictBody,
)
from einthoven.serving.docs_page import docs_html
from einthoven.serving.guard import Guard
from einthoven.serving.limits import USUAL_LIMITS, ServingLimits
from einthoven.serving.page import PAGE_HTML, PAGE_ICON
from einthoven.serving.page_drawing import DRAWING_SCRIPT
from einthoven.serving.page_measuring import MEASURING_SCRIPT
from einthoven.serving.page_results import RESULTS_SCRIPT
from einthoven.serving.page_script import PAGE_SCRIPT
from einthoven.serving.page_style import PAGE_STYLE
from einthoven.serving.service import PredictionService
from einthoven.version import DISCLAIMER

if TYPE_CHECKING:
    from fastapi import FastAPI

_ABOUT = f"""{DISCLAIMER} Recordings go in as a file (multipart/form-data, in the field file; a
WFDB record as two files) or as JSON, and are gone when the answer is out."""

_FORM_FIELDS = {
    "file": {
        "type": "array",
        "items": {"type": "string", "format": "binary"},
        "minItems": 1,
        "description": "The recording; of a WFDB record header and signal file",
    },
    "fs": {
        "type": "number",
        "exclusiveMinimum": 0,
        "description": "Hertz, for a file that does not state it",
    },
    "units": {"type": "string", "description": "Of the samples, for a file that does not state it"},
    "leads": {
        "type": "string",
        "description": "Names of the rows with commas between them, for a file that has none",
    },
}
_PREDICT_FIELDS = {
    "with_signal": {"type": "boolean", "description": "Give the recording back, to be drawn"}
}
_EXPLAIN_FIELDS = {
    "label": {"type": "string", "description": "What is explained; without it, the likeliest"},
    "method": {"type": "string", "description": "How; /metadata lists the methods"},
}
_REASONS = {
    400: "The form cannot be read",
    401: "The token is missing or wrong",
    403: "Asked by another site's page, or under another name",
    408: "The body took too long to arrive",
    413: "The body is too large",
    415: "The body is of another type",
    422: "The recording cannot be used; the error says why",
    500: "An unknown error; the service's log has it under the id",
    503: "Too much at once; Retry-After says when to come back",
    504: "The answer took too long",
}


def create_app(
    model_path: Path,
    *,
    token: str = "",
    limits: ServingLimits = USUAL_LIMITS,
    device: str = "auto",
) -> "FastAPI":
    """The application that serves one model; any ASGI server runs it.

    Args:
        model_path: of a trained model; scores of its test split that lie beside it are shown.
        token: what clients have to show as ``Authorization: Bearer``. Without one, only requests
            to this machine's own names are answered.
        limits: bounds of size, time and number.
        device: as the setting ``DEVICE``.

    Raises:
        CheckpointError: the model's file cannot be used.
        ConfigError: the libraries of the extra ``serving`` are missing, or there is no such device.
    """
    try:
        import python_multipart  # noqa: F401  # forms need it
        from fastapi import FastAPI, Request
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse
    except ImportError as error:
        raise ConfigError(
            f"serving needs {error.name}; install it with `pip install 'einthoven[serving]'`"
        ) from error
    service = PredictionService(model_path, token, limits, device)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Einthoven", version=__version__, description=_ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None, redirect_slashes=False, separate_input_output_schemas=False,
    )  # fmt: skip
    app.state.service = service
    app.add_middleware(Guard, token=token)
    _add_pages(app)

    async def tell_http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        told = {404: "there is nothing here; /docs lists what there is"}.get(
            error.status_code, str(error.detail)
        )
        return JSONResponse({"error": told}, error.status_code, headers=dict(error.headers or {}))

    app.add_exception_handler(HTTPException, tell_http_error)

    @app.get("/health", summary="How the service is", response_model=HealthAnswer, tags=["service"])
    async def health() -> PlainAnswer:
        return service.health()

    @app.get("/metadata", summary="What the model is", responses=_reasons(401, 403),
             tags=["service"])  # fmt: skip
    async def metadata() -> PlainAnswer:
        return service.metadata

    @app.post(
        "/predict", summary="What the model says of a recording", tags=["recordings"],
        responses={200: {"model": PredictAnswer}, **_reasons(*_REASONS)},
        openapi_extra=_request_body(PredictBody, _PREDICT_FIELDS),
    )  # fmt: skip
    async def predict(request: Request) -> JSONResponse:
        return JSONResponse(await service.predict(request))

    @app.post(
        "/explain", summary="Which leads and which moments carried it", tags=["recordings"],
        responses={200: {"model": dict[str, Any]}, **_reasons(*_REASONS)},
        openapi_extra=_request_body(ExplainBody, _EXPLAIN_FIELDS),
    )  # fmt: skip
    async def explain(request: Request) -> JSONResponse:
        return JSONResponse(await service.explain(request))

    if token:
        _ask_for_token(app)
    return app


def _reasons(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": _REASONS[status]} for status in statuses}


def _request_body(body: type[PredictBody] | type[ExplainBody], own: PlainAnswer) -> PlainAnswer:
    form = {"type": "object", "properties": _FORM_FIELDS | own, "required": ["file"],
            "additionalProperties": False}  # fmt: skip
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {"schema": body.model_json_schema()},
            },
        }
    }


def _ask_for_token(app: "FastAPI") -> None:
    """Say in the description of the API that it needs a token."""
    description = app.openapi()
    description.setdefault("components", {})["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"}
    }
    for path in ("/predict", "/explain", "/metadata"):
        for operation in description["paths"][path].values():
            operation["security"] = [{"token": []}]


def _add_pages(app: "FastAPI") -> None:
    from starlette.responses import HTMLResponse, Response

    script = "\n".join(
        ['"use strict";', DRAWING_SCRIPT, MEASURING_SCRIPT, RESULTS_SCRIPT, PAGE_SCRIPT]
    )

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE_HTML)

    @app.get("/page.css", include_in_schema=False)
    async def style() -> Response:
        return Response(PAGE_STYLE, media_type="text/css")

    @app.get("/page.js", include_in_schema=False)
    async def script_file() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/icon.svg", include_in_schema=False)
    async def icon() -> Response:
        return Response(PAGE_ICON, media_type="image/svg+xml")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_html(app.openapi()))
