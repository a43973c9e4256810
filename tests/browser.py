"""A page in a real browser, without a driver: what it is once its scripts have run, and their complaints."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 120
# Seconds of the page's own clock, which runs while nothing is left to do; its waits end sooner.
BUDGET_MS = 60_000
SETTINGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
    f"--virtual-time-budget={BUDGET_MS}",
    "--dump-dom",
)
# The last script of the page: a probe, whose answer goes into an attribute of the body.
PROBE = """
<script>
(async () => {{
  const until = async (isSo) => {{ while (!isSo()) await new Promise((done) => setTimeout(done, 20)); }};
  const probe = async () => {{ {code} }};
  let answer;
  try {{ answer = await probe(); }} catch (error) {{ answer = {{ error: String(error) }}; }}
  document.body.dataset.answer = JSON.stringify(answer);
  console.log("probed");
}})();
</script></body>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    dom: str
    answer: Any  # of the probe
    console: list[str]  # without the probe's own line


def browser() -> str:
    """The path of a browser; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return found


def load(page: Path, code: str, tmp_path: Path, *, fragment: str = "", width_px: int = 1280) -> Loaded:
    """The page with `code`, the body of an async function, run after its own scripts.

    It may wait with `await until(() => ...)`, and what it returns is the answer.
    """
    probed = tmp_path / "probed.html"
    content = page.read_text(encoding="utf-8")
    assert content.rstrip().endswith("</body>\n</html>")
    probed.write_text(content.replace("</body>", PROBE.format(code=code)), encoding="utf-8")
    command = [browser(), *SETTINGS, f"--window-size={width_px},900", f"--user-data-dir={tmp_path}/browser"]
    address = f"{probed.as_uri()}{fragment}"
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=TIMEOUT_S)
    console = re.findall(r"CONSOLE[^ ]* (.*)", done.stderr)
    assert [line for line in console if line.startswith('"probed"')], done.stderr
    body = re.search(r'<body[^>]*data-answer="([^"]*)"', done.stdout)
    assert body is not None, done.stdout[:2000]
    return Loaded(
        dom=done.stdout,
        answer=json.loads(unescape(body[1])),
        console=[line for line in console if not line.startswith('"probed"')],
    )
