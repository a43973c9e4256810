"""A judge behind a local HTTP server: both orders, ties, retries, refusals, and going on where it was."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rlstack.cli import app
from rlstack.evaluation.endpoint import wait_s
from rlstack.evaluation.verdicts import question, verdict_of, win_rate

Reply = tuple[int, dict[str, str], Any]


class Judge:
    """What the server does with a request, and what it has been asked."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer = answer
        self.before: list[Reply] = []  # replies to give first, instead of the answer
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.url = ""

    def reply(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Reply:
        self.requests.append((path, headers, body))
        if self.before:
            return self.before.pop(0)
        content = self.answer(body["messages"][0]["content"])
        return 200, {}, {"choices": [{"message": {"role": "assistant", "content": content}}]}


def between(text: str, start: str, end: str) -> str:
    return text.split(start)[1].split(end)[0].strip()


def prefers(*best: str, otherwise: str) -> Callable[[str], str]:
    """A judge that names the side whose answer is among `best`, and else says `otherwise`."""

    def answer(text: str) -> str:
        sides = {side: between(text, f"<answer of {side}>", f"</answer of {side}>") for side in "AB"}
        return next((f"It is. [[{side}]]" for side, given in sides.items() if given in best), otherwise)

    return answer


@contextmanager
def serving(judge: Judge) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = judge.reply(self.path, dict(self.headers), body)
            payload = json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(payload))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """AlpacaEval outputs of a model and of a baseline: ours wins at p0, loses at p1."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    paths = tmp_path / "ours.json", tmp_path / "theirs.json"
    for path, outputs in zip(paths, (["good", "poor", "same"], ["bad", "fine", "same "]), strict=True):
        rows = [{"instruction": f"p{i}", "output": o, "generator": "x"} for i, o in enumerate(outputs)]
        path.write_text(json.dumps(rows))
    return paths


def run(files: tuple[Path, Path], judge: Judge, *options: str) -> Result:
    return CliRunner().invoke(
        app, ["judge", *map(str, files), "--endpoint", judge.url, "--model", "m", *options]
    )


def result_of(files: tuple[Path, Path]) -> dict[str, Any]:
    return json.loads((files[0].parent / "ours-against-theirs" / "win_rate.json").read_text())


def test_a_pair_is_judged_in_both_orders(files: tuple[Path, Path]) -> None:
    judge = Judge(prefers("good", "fine", otherwise="Alike. [[C]]"))
    with serving(judge):
        done = run(files, judge)
    assert done.exit_code == 0, done.output
    result = result_of(files)
    assert (result["wins"], result["ties"], result["losses"], result["num_pairs"]) == (1, 1, 1, 3)
    assert result["win_rate"] == pytest.approx(1 / 2)
    assert result["stderr"] == pytest.approx(0.5 / 3**0.5)
    assert (result["contradictions"], result["no_verdict"]) == (0, 0)
    assert len(judge.requests) == 6
    path, headers, body = judge.requests[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("m", 0.0)
    assert "Authorization" not in headers


def test_a_liking_for_the_first_place_cancels(files: tuple[Path, Path]) -> None:
    judge = Judge(lambda text: "[[A]]")
    with serving(judge):
        run(files, judge)
    result = result_of(files)
    assert (result["win_rate"], result["ties"], result["contradictions"]) == (0.5, 3, 3)


def test_what_has_a_verdict_is_not_asked_again(files: tuple[Path, Path]) -> None:
    judge = Judge(prefers("good", "fine", otherwise="I cannot say."))
    with serving(judge):
        run(files, judge)
        assert len(judge.requests) == 8  # the two games without a verdict twice
        result = result_of(files)
        assert (result["num_pairs"], result["no_verdict"]) == (2, 1)
        judge.answer = prefers(otherwise="[[C]]")
        run(files, judge)
    assert len(judge.requests) == 10
    assert result_of(files)["ties"] == 1


def test_what_passes_by_itself_is_tried_again(files: tuple[Path, Path]) -> None:
    judge = Judge(prefers(otherwise="[[C]]"))
    again = {"Retry-After": "0"}
    judge.before = [(429, again, {}), (500, again, "down"), (503, again, {})]
    with serving(judge):
        done = run(files, judge, "--concurrency", "1")
    assert done.exit_code == 0, done.output
    assert len(judge.requests) == 6 + 3


def test_attempts_have_an_end_and_verdicts_are_kept(files: tuple[Path, Path]) -> None:
    judge = Judge(prefers(otherwise="[[C]]"))
    with serving(judge):
        original = judge.reply
        failing: Reply = (503, {"Retry-After": "0"}, "down")
        judge.reply = lambda *request: original(*request) if len(judge.requests) < 2 else failing  # type: ignore[method-assign]
        done = run(files, judge, "--concurrency", "1", "--max-attempts", "2")
        assert done.exit_code == 1
        assert "no answer after 2 attempts; status 503" in done.output
        assert "verdicts so far are kept" in done.output
        judge.reply = original  # type: ignore[method-assign]
        assert run(files, judge).exit_code == 0
    assert len(judge.requests) == 6


def test_a_refusal_is_not_tried_again(files: tuple[Path, Path]) -> None:
    judge = Judge(prefers(otherwise="[[C]]"))
    judge.before = [(401, {}, {"error": "no key"})] * 100
    with serving(judge):
        done = run(files, judge, "--concurrency", "1")
    assert done.exit_code == 2
    assert "answered with status 401" in done.output
    asked = [json.dumps(body) for _, _, body in judge.requests]
    assert len(set(asked)) == len(asked)


def test_the_key_comes_from_the_environment_alone(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = Judge(prefers(otherwise="[[C]]"))
    monkeypatch.setenv("JUDGE_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with serving(judge):
        assert run(files, judge, "--api-key-env", "JUDGE_KEY").exit_code == 0
        unset = run(files, judge, "--api-key-env", "NO_SUCH_VARIABLE")
    assert {headers["Authorization"] for _, headers, _ in judge.requests} == {"Bearer secret"}
    assert unset.exit_code == 2 and "the variable is not set" in unset.output
    assert all("secret" not in path.read_text() for path in files[0].parent.rglob("*.json*"))


def test_no_endpoint_is_asked_unbidden(files: tuple[Path, Path]) -> None:
    done = CliRunner().invoke(app, ["judge", *map(str, files), "--model", "m"])
    assert done.exit_code == 2
    wrong = CliRunner().invoke(app, ["judge", *map(str, files), "--model", "m", "--endpoint", "ftp://x"])
    assert wrong.exit_code == 2 and "a URL like" in wrong.output


@pytest.mark.parametrize("url", ["http://secret@h/v1", "http://h/v1?key=secret", "http://h/v1#secret"])
def test_an_endpoint_holds_no_secret(files: tuple[Path, Path], url: str) -> None:
    done = CliRunner().invoke(app, ["judge", *map(str, files), "--model", "m", "--endpoint", url])
    assert done.exit_code == 2 and "is accepted, for it is shown; give the key in" in done.output
    assert "secret" not in done.output


def test_verdicts_are_not_written_through_links(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("untouched")
    out = files[0].with_name(f"{files[0].stem}-against-{files[1].stem}")
    out.mkdir()
    (out / "judgments.jsonl").symlink_to(tmp_path / "mine")
    done = CliRunner().invoke(app, ["judge", *map(str, files), "--model", "m", "--endpoint", "http://h"])
    assert done.exit_code == 2 and "judgments.jsonl is a link to" in done.output
    assert (tmp_path / "mine").read_text() == "untouched"


@pytest.mark.parametrize(
    ("baseline", "shown"),
    [
        ('[{"instruction": "p0", "output": "x"}]', "lacks answers to 2 of 3 prompts, first to 'p1'"),
        ('[{"output": "x"}]', "row 1: is neither of AlpacaEval"),
        (
            '{"instruction": "p", "output": "x"}\n{"instruction": "p", "output": "y"}',
            "row 2: answers a prompt",
        ),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    files: tuple[Path, Path], baseline: str, shown: str
) -> None:
    files[1].write_text(baseline)
    judge = Judge(prefers(otherwise="[[C]]"))
    judge.url = "http://127.0.0.1:1/v1"
    done = run(files, judge)
    assert done.exit_code == 2
    assert shown in done.output.replace("\n", " ")


def test_the_question_holds_the_texts_as_they_are() -> None:
    text = question("{ANSWER_A}", "{PROMPT} [[A]]", "\\1 {x}")
    assert between(text, "<user>", "</user>") == "{ANSWER_A}"
    assert between(text, "<answer of A>", "</answer of A>") == "{PROMPT} [[A]]"
    assert between(text, "<answer of B>", "</answer of B>") == "\\1 {x}"


@pytest.mark.parametrize(
    ("text", "verdict"), [("[[A]]", "A"), ("not [[A]] but\n[[C]].", "C"), ("[[D]] [A]", None), ("", None)]
)
def test_the_last_verdict_counts(text: str, verdict: str | None) -> None:
    assert verdict_of(text) == verdict


def test_no_pairs_have_no_win_rate() -> None:
    assert win_rate([(None, 1.0)]).win_rate is None
    assert win_rate([(1.0, 0.5)]).win_rate == 0.75


@pytest.mark.parametrize(
    ("attempt", "asked", "wait"), [(1, None, 1), (4, None, 8), (30, None, 60), (1, "7", 7), (3, "soon", 4)]
)
def test_waits_grow_to_a_limit(attempt: int, asked: str | None, wait: float) -> None:
    assert wait_s(attempt, asked) == wait
