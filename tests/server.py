"""A web server that misbehaves in every way a real one does, one fault a request; other processes; locked folders."""


import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest


class Server:
    """Serves ``files`` (path → bytes), whole or in part.

    ``faults`` maps a path to a list of what goes wrong, one entry a request, then nothing:

    - a number: that status instead of the file; ``(429, 1)``: with ``Retry-After``;
    - ``("cut", n)``: the connection ends after n bytes of the answer; ``"hang up"``: after half of it;
    - ``("stall", seconds)``: it pauses before each piece;
    - ``"wrong"``: zeros instead of the content;
    - ``"short"``: a whole answer of a file that is one byte shorter than it should be;
    - ``("redirect", path)``: to another path of this server;
    - ``"no ranges"``: the whole file, whatever part was asked for;
    - ``"endless"``: no ``Content-Length``; the connection's end is the file's end.

    Attributes:
        asked: (path, first byte asked for) of every request, in order.
        sent: bytes of content sent, by path.
        ranges: whether parts are served; tags: whether ``ETag`` is; dates: whether ``Last-Modified`` is.
        careless: parts of a file are served although it is no longer the version that ``If-Range`` names.
        pace: seconds between two pieces of so many bytes as ``piece`` says.
    """

    def __init__(self):
        self.coding = None  # how everything is compressed on the way
        self.files, self.faults, self.asked, self.sent = {}, {}, [], {}
        self.ranges, self.tags, self.dates, self.pace = True, True, False, 0.0
        self.careless, self.piece = False, 1000
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802
                try:
                    outer.answer(self)
                except OSError:  # the other side is gone
                    self.close_connection = True

            def log_message(self, *args):
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size, daemon_threads = 50, True

            def handle_error(self, *args):  # the other side was killed
                pass

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def times(self, path):
        return sum(asked == path for asked, _ in self.asked)

    def tag(self, path):
        return f'"{hashlib.md5(self.files[path]).hexdigest()}"'

    def answer(self, request):
        path = unquote(request.path.lstrip("/"))
        data = self.files.get(path, b"")
        span = re.match(r"bytes=(\d*)-(\d*)$", request.headers.get("Range", "")) if self.ranges else None
        first, last = (span[1], span[2]) if span else ("", "")
        start = int(first) if first else max(0, len(data) - int(last)) if last else 0
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        self.asked.append((path, start))
        faults = self.faults.get(path, [])
        fault, amount = faults.pop(0) if faults else None, None
        if isinstance(fault, tuple):
            fault, amount = fault
        stamp = self.tag(path) if self.tags and path in self.files else None
        date = f"Wed, 21 Oct 2015 07:28:{sum(data) % 60:02d} GMT" if self.dates else None
        changed = not self.careless and request.headers.get("If-Range", stamp or date) not in (stamp, date)
        if fault == "no ranges" or changed:
            span, start, stop = None, 0, len(data)

        headers = {"Content-Length": "0"}
        status = fault if isinstance(fault, int) else 404 if path not in self.files else 206 if span else 200
        if span and start >= len(data):
            status = 416
        if status in (200, 206):
            body = data[start:stop][: -1 if fault == "short" else None]
            headers = {"ETag": stamp, "Last-Modified": date, "Content-Length": str(len(body))}
            if self.coding:  # although nobody asked
                body = gzip.compress(body)
                headers |= {"Content-Encoding": self.coding, "Content-Length": str(len(body))}
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        if fault == "redirect":
            status, headers = 302, {"Location": self.url + amount, "Content-Length": "0"}
        if status == 429 and amount:
            headers["Retry-After"] = str(amount)
        if fault == "endless":
            del headers["Content-Length"]
            request.close_connection = True
        request.send_response(status)
        for name, value in headers.items():
            if value is not None:
                request.send_header(name, value)
        request.end_headers()
        if status in (200, 206):
            self.send(request, path, bytes(len(body)) if fault == "wrong" else body, fault, amount)

    def send(self, request, path, body, fault, amount):
        end = amount if fault == "cut" else len(body) // 2 if fault == "hang up" else len(body)
        step = self.piece if self.pace or fault == "stall" else 1 << 16
        for at in range(0, end, step):
            piece = body[at : min(at + step, end)]
            if fault == "stall":
                time.sleep(amount)
            request.wfile.write(piece)
            self.sent[path] = self.sent.get(path, 0) + len(piece)
            time.sleep(self.pace)
        if end < len(body):
            request.close_connection = True


# What a shell starts in the background ignores an interruption, and so do its children.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def processes(script, *arguments, count=1):
    """Other processes that run a script. It must print "ready" and read a line; they go on together."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", HEED + script, *map(str, arguments)]
    started = [subprocess.Popen(command, **pipes) for _ in range(count)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    return started


def end(process, once, how=signal.SIGKILL):
    """Kill a process as soon as something has happened."""
    deadline = time.monotonic() + 20
    while not once() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(how)
    process.communicate(timeout=20)
    assert process.returncode != 0


@contextmanager
def read_only(folder):
    """The folder can be read but not written to, by root neither."""
    root = os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, as Linux has it")
