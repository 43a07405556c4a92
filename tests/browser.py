"""A real browser for tests: headless Chromium, JupyterLab to open in it, and axe-core to judge what it shows."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.request
from pathlib import Path
from time import monotonic, sleep

import pytest


@contextlib.contextmanager
def chromium():
    """Headless Chromium; the test is skipped where it cannot be had."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'zoobook[test]'")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("needs Chromium, which is not on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def jupyterlab(folder: Path):
    """JupyterLab on a folder; gives its address."""
    pytest.importorskip("jupyterlab", reason="needs JupyterLab: pip install 'zoobook[test]'")
    pytest.importorskip("anywidget", reason="needs anywidget: pip install 'zoobook[label]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
               "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url="]  # fmt: skip
    address, log = f"http://127.0.0.1:{port}", folder / "jupyterlab.log"
    environment = os.environ | {"JUPYTER_CONFIG_DIR": str(folder / "config")}  # nobody's own settings
    with log.open("w") as out:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], stdout=out, stderr=out, cwd=folder,
                                  env=environment)  # fmt: skip
    try:
        end = monotonic() + 90
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            assert server.poll() is None and monotonic() < end, log.read_text()[-3000:]
            sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    code = [{"cell_type": "code", "id": f"cell{n}", "metadata": {}, "outputs": [], "execution_count": None,
             "source": source} for n, source in enumerate(cells)]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    path.write_text(json.dumps({"cells": code, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))


def axe_source(folder: Path) -> str:
    """axe-core's script, from npm; the test is skipped where that cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, to fetch axe-core")
    got = subprocess.run([npm, "pack", "--silent", "axe-core@4"], cwd=folder, capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"axe-core cannot be fetched: {got.stderr[-200:]}")
    with tarfile.open(folder / got.stdout.split()[-1]) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


def violations(page, source: str | None = None, within: str = "document") -> list[str]:
    """What axe-core finds wrong with a page, or with an element of it; its source is needed once a page."""
    if source:
        page.evaluate(source)
    found = page.evaluate(f"axe.run({within}).then(results => results.violations)")
    return [f"{rule['id']}: {node['html'][:150]}" for rule in found for node in rule["nodes"]]
