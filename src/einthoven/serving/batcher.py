"""Requests that come together share a forward pass; predictions are made in one thread."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from einthoven.checkpoint import TrainedModel
from einthoven.prediction import SamplePrediction, predict_prepared
from einthoven.samples import PreparedSample
from einthoven.serving.limits import ServingLimits, overloaded
from einthoven.signal import window_starts


@dataclass(frozen=True)
class _Waiting:
    """A sample that waits for its pass."""

    sample: PreparedSample
    n_windows: int
    answer: asyncio.Future[SamplePrediction]


class Batcher:
    """Collects samples for a few milliseconds, or while a pass is under way, and predicts them.

    A forward pass of many windows takes little longer than one of a single window, and two threads
    of the same model would only get in each other's way.

    Attributes:
        passes: batches that were predicted.
        answered: samples in them.
    """

    def __init__(self, trained: TrainedModel, limits: ServingLimits) -> None:
        self.trained = trained
        self.limits = limits
        self.passes = 0
        self.answered = 0
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(limits.max_requests)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to collect; called within the running event loop."""
        self._task = asyncio.create_task(self._collect())

    async def stop(self) -> None:
        """End, and leave what waits unanswered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def predict(self, sample: PreparedSample) -> SamplePrediction:
        """Predict a sample, together with others.

        Raises:
            RequestRefused: too many wait already.
        """
        n_windows = len(window_starts(sample.microvolts.shape[1], self.trained.window))
        answer: asyncio.Future[SamplePrediction] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(sample, n_windows, answer))
        except asyncio.QueueFull:
            raise overloaded(f"{self._queue.qsize()} recordings wait already") from None
        return await answer

    async def _collect(self) -> None:
        while True:
            batch = [await self._queue.get()]
            # Those that come at the same moment still have to be read and prepared.
            await asyncio.sleep(self.limits.batch_wait_s)
            n_windows = batch[0].n_windows
            while n_windows < self.limits.batch_windows and not self._queue.empty():
                batch.append(self._queue.get_nowait())
                n_windows += batch[-1].n_windows
            # Whose time is over asks for no answer any more.
            wanted = [each for each in batch if not each.answer.done()]
            if wanted:
                await self._answer(wanted)

    async def _answer(self, batch: list[_Waiting]) -> None:
        samples = [each.sample for each in batch]
        self.passes += 1
        try:
            predictions = await asyncio.get_running_loop().run_in_executor(
                self._thread, predict_prepared, self.trained, samples
            )
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            # What one of them has caused is not the others' fault.
            for each in batch:
                await self._answer([each])
            return
        self.answered += len(batch)
        for each, prediction in zip(batch, predictions, strict=True):
            if not each.answer.done():
                each.answer.set_result(prediction)
