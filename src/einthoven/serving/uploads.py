"""From a request to a recording: bodies within bounds, files under names of our own."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven.serving.guard import FILE_FIELDS
from einthoven.serving.limits import Budget, RequestRefused, ServingLimits
from einthoven.serving.readers import ReadRequest

if TYPE_CHECKING:
    from starlette.requests import Request

# A WFDB record is a header and one or more files of samples.
MOST_FILES = 4
MOST_FIELDS = 8
LONGEST_FIELD = 4096
LONGEST_SUFFIX = 12
HEADER_SUFFIX = ".hea"

# What a form may hold beside the file and what is said of it.
OWN_FIELDS = {"predict": ("with_signal",), "explain": ("label", "method")}
FLAGS = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}

# So many bytes more are thrown away before a request that is too large gets its answer: a client
# that is still sending when the connection closes never sees it.
BYTES_THROWN_AWAY = 8 * 2**20


@dataclass
class SentRequest:
    """A request's body, in memory.

    Attributes:
        json_body: of a JSON request; None for a form.
        files: name and content of each file that came.
        fields: what else a form held.
    """

    json_body: bytes | None = None
    files: list[tuple[str, bytes]] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


# Bodies -----------------------------------------------------------------------------------------


async def receive_request(
    request: Request, kind: str, limits: ServingLimits, budget: Budget
) -> SentRequest:
    """Receive a body that is JSON or a form with files.

    What it takes from the budget is counted in ``request.state.held``; the caller gives it back.

    Raises:
        RequestRefused: it is too large, of another type, or not what the type says.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    stream = _bounded(request, limits, budget)
    if content_type == "application/json":
        return SentRequest(json_body=b"".join([chunk async for chunk in stream]))
    if content_type == "multipart/form-data":
        return await _receive_form(request, stream, kind, limits)
    raise RequestRefused(
        415,
        f"the body is {content_type or 'of no stated type'}; send a file as multipart/form-data, "
        "or application/json",
    )


async def _bounded(request: Request, limits: ServingLimits, budget: Budget) -> AsyncIterator[bytes]:
    """The body's chunks, as long as they keep within the limits."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limits.max_bytes:
        await _throw_away(request)
        raise _body_too_large(limits)
    n_bytes = 0
    async for chunk in request.stream():
        n_bytes += len(chunk)
        if n_bytes > limits.max_bytes:
            await _throw_away(request)
            raise _body_too_large(limits)
        budget.take(len(chunk))
        request.state.held = n_bytes
        yield chunk


def _body_too_large(limits: ServingLimits) -> RequestRefused:
    most = f"{limits.max_bytes / 2**20:g} MiB"
    return RequestRefused(413, f"the request is larger than {most}; send a shorter recording")


async def _throw_away(request: Request) -> None:
    n_bytes = 0
    while n_bytes <= BYTES_THROWN_AWAY:
        message = await request.receive()
        n_bytes += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _receive_form(
    request: Request, stream: AsyncIterator[bytes], kind: str, limits: ServingLimits
) -> SentRequest:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    parser = MultiPartParser(
        request.headers, stream,  # type: ignore[arg-type]  # it takes any asynchronous iterator
        max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD,
    )  # fmt: skip
    # Files stay in memory until they have a name of ours.
    parser.spool_max_size = limits.max_bytes
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", "") or "it has no boundary, or is cut off"
        raise RequestRefused(400, f"the form cannot be read: {reason}") from None
    sent = SentRequest()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                sent.files.append((value.filename or "", await value.read()))
            else:
                sent.fields[name] = value
            _check_field(name, isinstance(value, UploadFile), kind)
    finally:
        await form.close()
    return sent


def _check_field(name: str, is_file: bool, kind: str) -> None:
    allowed = (*FILE_FIELDS, *OWN_FIELDS[kind])
    if is_file and name != "file":
        raise RequestRefused(422, "send the recording's file in the field file")
    if not is_file and name not in allowed:
        raise RequestRefused(
            422, f"{shortened(name)!r} is no field of this form; beside file it takes "
            + ", ".join(allowed)
        )  # fmt: skip


def shortened(text: str, longest: int = 40) -> str:
    """What a client has sent, cut to a length that an error can quote."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


# Fields -----------------------------------------------------------------------------------------


def stated_fs(fields: dict[str, str]) -> float | None:
    """The sampling rate that a form states, in hertz."""
    text = fields.get("fs", "").strip()
    if not text:
        return None
    try:
        fs = float(text)
    except ValueError:
        fs = float("nan")
    if not 0 < fs < float("inf"):
        raise RequestRefused(422, f"fs is {shortened(text)!r}; give a number of hertz above 0")
    return fs


def stated_flag(fields: dict[str, str], name: str) -> bool:
    """A field that is true or false; absent is false."""
    text = fields.get(name, "").strip().lower()
    if text and text not in FLAGS:
        raise RequestRefused(422, f"{name} is {shortened(text)!r}; give true or false")
    return FLAGS.get(text, False)


def stated_leads(fields: dict[str, str]) -> tuple[str, ...] | None:
    """The names of a file's rows, which a form states with commas between them."""
    names = tuple(part.strip() for part in fields.get("leads", "").replace(";", ",").split(","))
    return names if any(names) else None


def form_options(sent: SentRequest, kind: str) -> dict[str, Any]:
    """What a form asks for beside the file, in the words of the JSON bodies."""
    if kind == "predict":
        return {"with_signal": stated_flag(sent.fields, "with_signal")}
    return {name: sent.fields.get(name) or None for name in OWN_FIELDS["explain"]}


# Files ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def written_request(sent: SentRequest, kind: str, private_dir: Path) -> Iterator[ReadRequest]:
    """What a reader is asked to read; files lie in a folder of their own meanwhile.

    Raises:
        RequestRefused: there is no file, or parts of a record are missing.
    """
    if sent.json_body is not None:
        yield ReadRequest(kind, json_body=sent.json_body)
        return
    if not any(content for _, content in sent.files):
        raise RequestRefused(422, "there is no file, or an empty one, in the field file")
    folder = private_dir / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    try:
        yield ReadRequest(
            kind,
            path=_write_files(sent.files, folder),
            fs=stated_fs(sent.fields),
            units=sent.fields.get("units", "").strip() or None,
            leads=stated_leads(sent.fields),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(files: Sequence[tuple[str, bytes]], folder: Path) -> Path:
    """Write files under random names of one stem; returns the one to read."""
    stem = secrets.token_hex(8)
    given = [Path(name.replace("\\", "/")).name for name, _ in files]
    ours = {name: f"{stem}{_safe_suffix(name)}" for name in given}
    if len(set(ours.values())) < len(files):
        raise RequestRefused(
            422, "send one recording at a time: one file, or a WFDB record's header and signal file"
        )
    main = next((name for name in given if name.lower().endswith(HEADER_SUFFIX)), given[0])
    if len(files) > 1 and not main.lower().endswith(HEADER_SUFFIX):
        raise RequestRefused(
            422, "of several files one has to be the header (.hea) of a WFDB record"
        )
    for name, (_, content) in zip(given, files, strict=True):
        is_header = name.lower().endswith(HEADER_SUFFIX)
        written = _renamed_header(content, stem, ours) if is_header else content
        (folder / ours[name]).write_bytes(written)
    return folder / ours[main]


def _safe_suffix(name: str) -> str:
    suffix = Path(name).suffix.lower()
    is_plain = suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= LONGEST_SUFFIX
    return suffix if is_plain else ""


def _renamed_header(content: bytes, stem: str, ours: dict[str, str]) -> bytes:
    """A WFDB header whose record and files have our names; any other file it names is refused."""
    lines = content.decode("latin-1").splitlines()
    is_record_line = True
    for number, line in enumerate(lines):
        first, blank, rest = line.strip().partition(" ")
        if not first or first.startswith("#"):
            continue
        if is_record_line:
            _, slash, parts = first.partition("/")
            lines[number] = f"{stem}{slash}{parts}{blank}{rest}"
            is_record_line = False
        elif first not in ours:
            raise RequestRefused(
                422,
                f"the header names the file {shortened(first)!r}, which was not sent with it; "
                "choose both files together",
            )
        else:
            lines[number] = f"{ours[first]}{blank}{rest}"
    return ("\n".join(lines) + "\n").encode("latin-1")
