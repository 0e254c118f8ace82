"""What a service takes on, and how it says no."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

RETRY_AFTER_S = 1


@dataclass(frozen=True)
class ServingLimits:
    """Bounds of one service; each keeps one client from taking all of the machine.

    Attributes:
        max_bytes: of one request's body.
        max_buffered_bytes: of all bodies and recordings that are held at once.
        max_values: leads times samples of one recording.
        max_requests: predictions and explanations that are under way at once; more are told to
            come back.
        max_explanations: explanations among them.
        max_windows_explained: windows of a recording that is explained.
        receive_s: seconds in which a body must have arrived.
        read_s: seconds in which a file must have been read.
        predict_s, explain_s: seconds from a body's arrival to the answer.
        batch_windows: windows that share a forward pass.
        batch_wait_s: seconds that a first request waits for others to share its pass.
        n_readers: processes that read files.
        reader_memory: bytes that a reader may take, where the system can hold it to them.
    """

    max_bytes: int = 32 * 2**20
    max_buffered_bytes: int = 256 * 2**20
    max_values: int = 16_000_000
    max_requests: int = 64
    max_explanations: int = 4
    max_windows_explained: int = 12
    receive_s: float = 30.0
    read_s: float = 10.0
    predict_s: float = 30.0
    explain_s: float = 120.0
    batch_windows: int = 64
    batch_wait_s: float = 0.003
    n_readers: int = 2
    reader_memory: int = 4 * 2**30


USUAL_LIMITS = ServingLimits()


@dataclass
class RequestRefused(Exception):
    """A request that gets no answer but a reason.

    Attributes:
        status: of HTTP.
        error: what is wrong and what to do.
        more: further values of the answer, beside ``error``.
        headers: of the answer.
    """

    status: int
    error: str
    more: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def overloaded(what: str) -> RequestRefused:
    """More is asked for than can be answered soon."""
    return RequestRefused(
        503, f"{what}; try again in a moment", headers={"Retry-After": str(RETRY_AFTER_S)}
    )


class Gate:
    """Lets so many in at once and refuses the others, so that nobody waits without end."""

    def __init__(self, most: int, what: str) -> None:
        self.most = most
        self.what = what
        self.inside = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for a while.

        Raises:
            RequestRefused: it is full.
        """
        if self.inside >= self.most:
            raise overloaded(f"{self.inside} {self.what} are under way already")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


class Budget:
    """Bytes that are held at once, over all requests."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, n_bytes: int) -> None:
        """Hold some more.

        Raises:
            RequestRefused: there are none left.
        """
        if self.held + n_bytes > self.most:
            raise overloaded("other uploads take all the memory there is for them")
        self.held += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Hold some less."""
        self.held -= n_bytes
