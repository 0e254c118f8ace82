"""From a request to its answer: received, read, prepared, predicted or explained, within limits."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.checkpoint import TrainedModel
from einthoven.errors import RecordError
from einthoven.prediction import load_best_model
from einthoven.samples import PreparedSample, prepare_sample
from einthoven.serving.answers import model_metadata, prediction_answer, shown_signal
from einthoven.serving.batcher import Batcher
from einthoven.serving.explaining import METHODS, explanation_values
from einthoven.serving.limits import Budget, Gate, RequestRefused, ServingLimits
from einthoven.serving.readers import ReaderPool, ReadSignal
from einthoven.serving.uploads import form_options, receive_request, written_request
from einthoven.settings import did_you_mean
from einthoven.signal import window_starts

if TYPE_CHECKING:
    from starlette.requests import Request


class PredictionService:
    """A model, the processes that read for it, and the thread that it works in.

    Attributes:
        trained: the model.
        metadata: what ``/metadata`` says.
    """

    def __init__(
        self, model_path: Path, token: str, limits: ServingLimits, device: str = "auto"
    ) -> None:
        self.trained: TrainedModel = load_best_model(model_path, device)
        self.metadata = model_metadata(self.trained, model_path, limits, METHODS)
        self.needs_token = bool(token)
        self.limits = limits
        self.readers = ReaderPool(limits)
        self.batcher = Batcher(self.trained, limits)
        self.requests = Gate(limits.max_requests, "requests")
        self.explanations = Gate(limits.max_explanations, "explanations")
        self.budget = Budget(limits.max_buffered_bytes)
        self.private_dir = Path()
        # Of its own: an explanation takes seconds, which predictions need not wait for.
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="explain")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Readers and batcher at work; files of requests lie in a folder that only we can read."""
        with tempfile.TemporaryDirectory(prefix="einthoven-", ignore_cleanup_errors=True) as name:
            self.private_dir = Path(name)
            self.batcher.start()
            try:
                await self.readers.start()
                yield
            finally:
                await self.readers.stop()
                await self.batcher.stop()
                self._explainer.shutdown(wait=False, cancel_futures=True)

    def health(self) -> dict[str, Any]:
        """How the service is; `HealthAnswer` describes it."""
        return {
            "status": "ok",
            "needs_token": self.needs_token,
            "under_way": self.requests.inside,
            "answered": self.batcher.answered,
            "passes": self.batcher.passes,
        }

    async def predict(self, request: Request) -> dict[str, Any]:
        """What ``/predict`` says.

        Raises:
            RequestRefused: a limit was met.
            RecordError: the recording cannot be used.
        """
        with self.requests.enter(), self._held(request):
            read, options = await self._read(request, "predict")
            async with within(self.limits.predict_s, 504, "the prediction took"):
                sample = await asyncio.to_thread(self._prepare, read)
                prediction = await self.batcher.predict(sample)
                answer = prediction_answer(prediction, read, self.trained, self.metadata["model"])
                if options.get("with_signal"):
                    answer["signal"] = await asyncio.to_thread(shown_signal, read)
            return answer

    async def explain(self, request: Request) -> dict[str, Any]:
        """What ``/explain`` says.

        Raises:
            RequestRefused: a limit was met.
            RecordError: the recording, the label or the method cannot be used.
        """
        with self.requests.enter(), self.explanations.enter(), self._held(request):
            read, options = await self._read(request, "explain")
            label, method = options.get("label"), options.get("method") or METHODS[0]
            self._check_choice("label", label, self.trained.labels)
            self._check_choice("method", method, METHODS)
            self._check_length(read)
            async with within(self.limits.explain_s, 504, "the explanation took"):
                return await asyncio.get_running_loop().run_in_executor(
                    self._explainer, explanation_values, self.trained, read, label, method
                )

    @contextlib.contextmanager
    def _held(self, request: Request) -> Iterator[None]:
        """While a request is under way its bytes count; afterwards they no longer do."""
        request.state.held = 0
        try:
            yield
        finally:
            self.budget.give_back(request.state.held)

    async def _read(self, request: Request, kind: str) -> tuple[ReadSignal, dict[str, Any]]:
        async with within(self.limits.receive_s, 408, "the body took"):
            sent = await receive_request(request, kind, self.limits, self.budget)
        with written_request(sent, kind, self.private_dir) as wanted:
            options = {} if wanted.path is None else form_options(sent, kind)
            read = await self.readers.read(wanted)
        # A small file may hold a long recording.
        self.budget.take(read.signal.nbytes)
        request.state.held += read.signal.nbytes
        return read, options | read.options

    def _prepare(self, read: ReadSignal) -> PreparedSample:
        return prepare_sample(read.signal, read.fs, read.leads, self.trained.input)

    def _check_choice(self, name: str, choice: str | None, known: tuple[str, ...]) -> None:
        if choice is not None and choice not in known:
            nearest = did_you_mean(choice, known)
            raise RecordError(
                f"{name} {choice[:40]!r} is not known{nearest or ': use ' + ', '.join(known[:30])}"
            )

    def _check_length(self, read: ReadSignal) -> None:
        n_samples = round(read.signal.shape[1] * self.trained.fs / read.fs)
        n_windows = len(window_starts(n_samples, self.trained.window))
        if n_windows > self.limits.max_windows_explained:
            most = self.limits.max_windows_explained * self.trained.window / self.trained.fs
            raise RecordError(
                f"the recording lasts {read.signal.shape[1] / read.fs:.0f} s, and at most "
                f"{most:g} s are explained; cut out the part that matters"
            )


@contextlib.asynccontextmanager
async def within(seconds: float, status: int, what: str) -> AsyncIterator[None]:
    """Give up after some seconds.

    Raises:
        RequestRefused: with this status, after them.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RequestRefused(
            status, f"{what} longer than {seconds:g} s and was given up; try again later"
        ) from None
