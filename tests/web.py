"""A local web server with faults on demand."""

import hashlib
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web(ThreadingHTTPServer):
    """Serves ``pages``, bytes by path, with ETags and ranges; use it in ``with``.

    ``faults[path]`` are functions of the handler that answer in its stead, one a request, until none is left;
    ``always[path]`` answers every time.
    """

    daemon_threads = True

    def __init__(self, pages: dict[str, bytes] | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages if pages is not None else {}
        self.faults: dict[str, list[Callable]] = defaultdict(list)
        self.always: dict[str, Callable] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []  # path and headers of each request
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Of the root, without a slash."""
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, path: str) -> int:
        """How often ``path`` was asked for."""
        return sum(asked == path for asked, _ in self.asked)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Nothing is printed."""

    def do_GET(self):
        """Record, then answer."""
        server = self.server
        with server.lock:
            server.asked.append((self.path, dict(self.headers)))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            queue = server.faults[self.path]
            answer = queue.pop(0) if queue else server.always.get(self.path, whole)
        try:
            answer(self)
        finally:
            with server.lock:
                server.at_once -= 1

    def reply(self, status: int, headers: dict[str, object], body: bytes = b"") -> None:
        """Status, headers, body, as given; the connection stays open if they agree."""
        self.close_connection = len(body) != headers.get("Content-Length")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    @property
    def body(self) -> bytes:
        """What the path stands for."""
        return self.server.pages[self.path]


def whole(handler: Handler) -> None:
    """A good answer: all, or the range asked for if the version still is the one named."""
    if handler.path not in handler.server.pages:
        handler.reply(404, {"Content-Length": 0})
        return
    body = handler.body
    tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if asked and handler.headers.get("If-Range") == tag:
        start = int(asked[1])
        if start >= len(body):
            handler.reply(416, {"Content-Length": 0, "Content-Range": f"bytes */{len(body)}"})
            return
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.reply(206, {"Content-Length": len(body) - start, "Content-Range": span, "ETag": tag}, body[start:])
    else:
        handler.reply(200, {"Content-Length": len(body), "ETag": tag}, body)


def no_ranges(handler: Handler) -> None:
    """All of it, whatever was asked for."""
    handler.reply(200, {"Content-Length": len(handler.body)}, handler.body)


def status(code: int, **headers: object) -> Callable:
    """An answer with this status; ``Retry_After`` stands for Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.reply(code, {"Content-Length": 0, **named})


def cut_off(handler: Handler) -> None:
    """The first half of what is still to come, then the connection closes."""
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start, body = int(asked[1]) if asked else 0, handler.body
    tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
    headers = {"Content-Length": len(body) - start, "ETag": tag}
    if asked:
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    rest = body[start:]
    handler.reply(206 if asked else 200, headers, rest[: len(rest) // 2])


def short(handler: Handler) -> None:
    """Says that it is shorter than it is: half of it arrives, and HTTP sees nothing wrong."""
    half = handler.body[: len(handler.body) // 2]
    handler.reply(200, {"Content-Length": len(half)}, half)


def hang(handler: Handler) -> None:
    """No answer."""
    handler.server.closing.wait(20)


def stall(handler: Handler) -> None:
    """The headers and ten bytes, then nothing."""
    handler.reply(200, {"Content-Length": len(handler.body)}, handler.body[:10])
    handler.server.closing.wait(20)


def trickle(handler: Handler) -> None:
    """A byte now and then, for ever."""
    handler.reply(200, {"Content-Length": 1_000_000})
    while not handler.server.closing.is_set():
        handler.wfile.write(b"x")
        time.sleep(0.05)


def around(handler: Handler) -> None:
    """A redirect to itself."""
    handler.reply(302, {"Location": handler.path, "Content-Length": 0})
