"""What stands before everything: who may ask, what is sent along, and how errors are told."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from einthoven.console import log
from einthoven.errors import EinthovenError
from einthoven.serving.limits import RequestRefused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a client may say of a file beside the file.
FILE_FIELDS = ("fs", "units", "leads")

# What may be had without the token: the page, what it is made of, and whether a token is needed.
OPEN_PATHS = frozenset(
    {"/", "/page.css", "/page.js", "/icon.svg", "/docs", "/openapi.json", "/health"}
)

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

# An absolute path of POSIX or Windows, as a message may hold one.
_ANY_PATH = re.compile(
    r"""(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'":;,()]+[/\\])+[^\s'":;,()]*"""
)


def without_paths(message: str) -> str:
    """A message that tells nothing of this machine's folders.

    >>> without_paths("'/tmp/ab/cd.edf' holds 3 mm/mV")
    "'the file' holds 3 mm/mV"
    """
    return _ANY_PATH.sub("the file", message)


def error_answer(error: Exception) -> RequestRefused:
    """What a client is told of an error; of an unknown one only an id, and the log the rest."""
    if isinstance(error, RequestRefused):
        return error
    if isinstance(error, EinthovenError):
        told = without_paths(str(error))
        needs = missing_facts(told)
        return RequestRefused(422, told, {"needs": needs} if needs else {})
    number = secrets.token_hex(4)
    log.error("Error %s while answering a request", number, exc_info=error)
    return RequestRefused(
        500, f"something went wrong here; the service's log has it as {number}", {"id": number}
    )


def missing_facts(message: str) -> list[str]:
    """What a file does not state and its reader asks for, told from the reader's words.

    >>> missing_facts("the file does not state its sampling rate: pass fs, in hertz")
    ['fs']
    """
    return [name for name in FILE_FIELDS if re.search(rf"\bpass {name}\b", message)]


class Guard:
    """ASGI middleware: token, origin, headers, errors.

    Attributes:
        token: what a client has to show; nothing is asked for where it is empty.
    """

    def __init__(self, app: ASGIApp, token: str = "") -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", []), *encoded(SECURITY_HEADERS)]
            await send(message)

        try:
            self._check(scope)
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if has_begun:
                raise
            await send_refusal(error_answer(error), send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if self.token:
            if scope["path"] not in OPEN_PATHS:
                self._check_token(headers.get("authorization", ""))
            return
        # Without a token, a page of anyone's could have the browser ask a service on its user's
        # own machine: by its address, or by a name that is made to point there.
        check_host(headers.get("host", ""))
        is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if is_foreign and scope["method"] not in ("GET", "HEAD"):
            raise RequestRefused(403, "another site's page may not use this service")

    def _check_token(self, authorization: str) -> None:
        scheme, _, shown = authorization.partition(" ")
        is_right = hmac.compare_digest(shown.strip().encode("latin-1"), self.token.encode("utf-8"))
        if scheme.lower() != "bearer" or not is_right:
            raise RequestRefused(
                401,
                "this service needs its token, in the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


def check_host(host: str) -> None:
    """Refuse a request that was sent to a name which is not this machine's own.

    Raises:
        RequestRefused: it was.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if not is_loopback(name):
        raise RequestRefused(
            403, "this service answers on its own machine only; start it with a token for others"
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


async def send_refusal(refused: RequestRefused, send: Send) -> None:
    """Answer with an error as JSON."""
    values: dict[str, Any] = {"error": refused.error, **refused.more}
    body = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": encoded(headers | dict(refused.headers)),
        }
    )
    await send({"type": "http.response.body", "body": body})
