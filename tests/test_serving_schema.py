"""Whatever the API's own description allows, or does not, gets an answer that the description has.

schemathesis draws requests from the OpenAPI description, right and wrong ones, and holds the
answers to it: statuses, types, shapes, and no failure of the service.
"""

from __future__ import annotations

import pytest
from served_model import narrow_resnet, running, write_model

from einthoven.models.registry import MODELS
from einthoven.serving.app import create_app
from einthoven.serving.limits import ServingLimits

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

OPERATIONS = [("/health", "GET"), ("/metadata", "GET"), ("/predict", "POST"), ("/explain", "POST")]


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """The description of a running service."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "resnet1d_wang", narrow_resnet)
        path = write_model(tmp_path_factory.mktemp("model"))
        app = create_app(path, limits=ServingLimits(n_readers=1), device="cpu")
        with running(app) as address:
            yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def test_every_operation_is_among_those_below(api):
    assert {(each.ok().path, each.ok().method.upper()) for each in api.get_all_operations()} == set(
        OPERATIONS
    )


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_request_gets_an_answer_that_the_description_has(api, path, method, mode):
    operation = api[path][method]
    if method == "GET" and mode.is_negative:
        pytest.skip("nothing of such a request can be wrong")

    @settings(
        max_examples=25 if method == "POST" else 3, derandomize=True, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    # Numbers at random are no ECG, and are refused with the reason.
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()
