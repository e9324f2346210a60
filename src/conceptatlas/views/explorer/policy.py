"""Who may ask the explorer what: one frozen policy, enforced before any page is reached.

- The server listens on 127.0.0.1 unless ``--unsafe-listen`` names another address.
- ``Host`` must be one of the server's own names: a page elsewhere cannot reach us through a name of its own (DNS
  rebinding). On another address than this machine's own, a secret from the start URL must stand in a cookie instead.
- What changes something must come from our own pages: ``Origin`` is required and must be ours.
- (``Referrer-Policy`` is ``same-origin``: with ``no-referrer`` browsers send ``Origin: null`` from our own forms.)
- Bodies are small. Answers forbid everything that the pages do not need.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
MAX_BODY = 64 * 1024
COOKIE = "conceptatlas"
CONTENT_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", CONTENT_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class NetworkPolicy:
    """Where the server listens and whom it answers.

    Attributes:
        address: The address to listen on.
        port: The port.
        token: The secret that the start URL carries when the address is not this machine's own; None otherwise.
    """

    address: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)

    @classmethod
    def local(cls, port: int) -> NetworkPolicy:
        """Return the policy for this machine only."""
        return cls(port=port)

    @classmethod
    def unsafe(cls, address: str, port: int) -> NetworkPolicy:
        """Return the policy for another address, with a fresh token."""
        return cls(address=address, port=port, token=secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        """The URL to open in a browser."""
        if self.token is None:
            return f"http://{self.address}:{self.port}/"
        return f"http://{self.address}:{self.port}/?token={self.token}"

    def hosts(self) -> frozenset[str]:
        """Return the values of ``Host`` that are ours."""
        return frozenset(f"{name}:{self.port}" for name in LOCAL_NAMES)

    def host_is_ours(self, host: str) -> bool:
        """Whether a ``Host`` is acceptable: one of ours, or any where a token is asked for."""
        return bool(host) if self.token is not None else host.lower() in self.hosts()

    def origin_is_ours(self, origin: str | None, host: str) -> bool:
        """Whether an ``Origin`` is that of the page that we served under this ``Host``."""
        return origin is not None and origin.lower() == f"http://{host.lower()}"

    def token_is_right(self, given: str | None) -> bool:
        """Whether a token is the secret (always, where none is asked for)."""
        return self.token is None or (given is not None and hmac.compare_digest(given.encode(), self.token.encode()))


def _cookie(header: str) -> str | None:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


class Guard:
    """ASGI middleware that enforces a ``NetworkPolicy``."""

    def __init__(self, app: App, policy: NetworkPolicy) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request ourselves; pass the others on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in ("host", "origin") and key in headers:
                await _refuse(send, 400, f"The request has two {key} headers.")
                return
            headers[key] = value.decode("latin-1")
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        token = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
        if self.policy.token is not None and token is not None and self.policy.token_is_right(token):
            await self._welcome(scope, send)
            return
        await self.app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return status and words for a request that is not answered, or None."""
        host = headers.get("host", "")
        if not self.policy.host_is_ours(host):
            return 403, "This server answers under its own name only; open the URL that it printed."
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        given = query.get("token") or _cookie(headers.get("cookie", ""))
        if not self.policy.token_is_right(given):
            return 403, "This server wants its token; open the URL that it printed."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are understood here."
        if scope["method"] == "POST" and not self.policy.origin_is_ours(headers.get("origin"), host):
            return 403, "This request did not come from a page of this server."
        if (
            scope["method"] != "POST"
            and "origin" in headers
            and not self.policy.origin_is_ours(headers["origin"], host)
        ):
            return 403, "This request came from a page of another server."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY:
            return 413, f"The body is larger than {MAX_BODY} bytes."
        return None

    async def _welcome(self, scope: Scope, send: Send) -> None:
        """Move the token from the URL into a cookie that no script can read."""
        pairs = [pair for pair in parse_qsl(scope["query_string"].decode("latin-1")) if pair[0] != "token"]
        path = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else "/"
        # One slash only: "//host" would be an address elsewhere.
        where = "/" + path.lstrip("/\\") + ("?" + urlencode(pairs) if pairs else "")
        cookie = f"{COOKIE}={self.policy.token}; HttpOnly; SameSite=Strict; Path=/"
        start = {
            "type": "http.response.start",
            "status": 303,
            "headers": [(b"location", where.encode("latin-1")), (b"set-cookie", cookie.encode("latin-1"))],
        }
        await _with_headers(send)(start)
        await send({"type": "http.response.body", "body": b""})


class BodyTooLarge(Exception):
    """A body without a stated length grew beyond the limit."""


def _limited(receive: Receive) -> Receive:
    taken = 0

    async def read() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY:
            raise BodyTooLarge
        return message

    return read


def _with_headers(send: Send) -> Send:
    async def reply(message: Message) -> None:
        if message["type"] == "http.response.start":
            have = {name.lower() for name, _ in message.get("headers", [])}
            extra = [(k.encode(), v.encode()) for k, v in HEADERS if k.encode() not in have]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return reply


async def _refuse(send: Send, status: int, words: str) -> None:
    start = {
        "type": "http.response.start",
        "status": status,
        "headers": [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")],
    }
    await _with_headers(send)(start)
    await send({"type": "http.response.body", "body": words.encode()})
