"""One side of a comparison: a process that prepares some work and does it, timed, whenever it is told to.

Both sides of a comparison run in processes of their own, each perhaps in its own virtual environment, and take turns;
the one whose turn it is not sleeps. Nothing here needs more than Python itself.
"""
from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Side:
    """The other end: starts the process and asks it to work.

    Args:
        python: the interpreter, hence the environment.
        script: the file with the works.
        work: name of the work.
        options: its arguments.
    """

    def __init__(self, python: Path, script: Path, work: str, options: dict):
        command = [str(python), str(script), work, json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def round(self) -> dict:
        """Have it done once more: ``seconds``, ``peak_mb`` of the process so far, and what else the work tells."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._process.args[1:3])} ended with {self._process.wait()}")
        return json.loads(line)


def serve(works: dict[str, Callable[..., Callable[[], dict | None]]]) -> None:
    """Prepare the work named on the command line, then do it once for each line of the standard input.

    Args:
        works: by name, functions that prepare a work and return the function that does it once.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    work = works[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps({}), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        told = work() or {}
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), **told}), file=answers, flush=True)


def peak_mb() -> float:
    """The most memory that this process has had so far."""
    try:  # getrusage would count in what the process that started this one had
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # a Mac counts in bytes
