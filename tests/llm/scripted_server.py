"""An OpenAI-compatible server on loopback whose answers are scripted, faults included.

>>> with ScriptedServer(lambda request: Answer("hello")) as server:
...     client = openai.OpenAI(base_url=server.url, api_key="k")
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server does with one request."""

    text: str | None = ""
    status: int = 200
    error: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    finish_reason: str = "stop"
    delay: float = 0.0
    cut_after: int | None = None  # bytes of the body, after which the connection is torn down
    raw: bytes | None = None  # a body of one's own


@dataclass(frozen=True)
class Request:
    """What was asked."""

    number: int  # from 0, in the order of arrival
    body: dict[str, Any]
    headers: dict[str, str]
    path: str

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][-1]["content"])


Script = Callable[[Request], Answer]


def in_order(answers: Iterable[Answer], *, then: Script | None = None) -> Script:
    """Answer with ``answers`` one after the other, then as ``then`` says (else with the last)."""
    lock, rest, last = threading.Lock(), iter(answers), [Answer(status=500, error="no script")]

    def script(request: Request) -> Answer:
        with lock:
            for answer in rest:
                last[0] = answer
                return answer
        return then(request) if then else last[0]

    return script


class ScriptedServer:
    """Serves ``script`` at ``url`` until the block ends; ``requests`` are those that came, in order."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    request = Request(
                        len(outer.requests), body, {k.lower(): v for k, v in self.headers.items()}, self.path
                    )
                    outer.requests.append(request)
                answer = outer.script(request)
                time.sleep(answer.delay)
                # The client may have given up, as it should after a time-out.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._send(answer, body)

            def _send(self, answer: Answer, body: dict[str, Any]) -> None:
                data = answer.raw if answer.raw is not None else json.dumps(_reply(answer, body)).encode()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if answer.cut_after is None:
                    self.wfile.write(data)
                    return
                self.wfile.write(data[: answer.cut_after])
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _reply(answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": {"message": answer.error, "type": "scripted"}}
    message = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
