"""A local web server for tests of downloads."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

FILE = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)


class Server:
    """Answers each request with the next of `answers`; the last one is repeated."""

    def __init__(self, *answers: Callable):
        self.answers, self.asked, self.sent = list(answers), [], 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(dict(self.headers))
                answer = server.answers[0]
                if len(server.answers) > 1:
                    server.answers.pop(0)
                answer(self)

            def head(self, status, **headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), str(value))
                self.end_headers()

            def body(self, data):
                server.sent += len(data)
                self.wfile.write(data)

            def log_message(self, *words):
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request, address):
                pass  # tests close connections on purpose

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/file.bin"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


def good(content: bytes = FILE, cut: int | None = None, **extra) -> Callable:
    """A correct answer, with ranges. `cut`: the connection breaks after this many bytes."""

    def answer(request):
        asked = request.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start:
            if start >= len(content):
                return request.head(416, Content_Range=f"bytes */{len(content)}")
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            request.head(206, Content_Range=place, Content_Length=len(content) - start)
        else:
            request.head(200, Content_Length=len(content), **extra)
        request.body(content[start : len(content) if cut is None else start + cut])

    return answer


def status(code: int) -> Callable:
    return lambda request: request.head(code, Content_Length=0)
