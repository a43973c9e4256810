"""`rlstack judge`: the win rate of a model's answers against a baseline's, by a judge of the user's choice.

The question is ours, and so is the figure: a leaderboard's figure comes from its own tool, which reads the
same files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlstack.data.journal import Journal
from rlstack.evaluation.endpoint import Endpoint, EndpointError
from rlstack.evaluation.games import Game, pair_up, read_answers
from rlstack.evaluation.verdicts import WinRate, score_of, verdict_of, win_rate
from rlstack.telemetry.progress import Progress
from rlstack.telemetry.run_dir import write_json
from rlstack.telemetry.run_links import refuse_links

ATTEMPTS = 2  # at a verdict, where the judge's answer has none


def judge(
    answers: Path, baseline: Path, *, endpoint: Endpoint, model: str, concurrency: int, out: Path
) -> WinRate:
    """Ask for all verdicts that `out` lacks, `concurrency` at a time, and write win_rate.json there.

    Closes the endpoint.

    Raises:
        ConfigError: a file cannot be used, `out` has links, or the endpoint refuses the requests.
        EndpointError: the endpoint does not answer; the verdicts so far are kept.
    """
    refuse_links(out)
    pairs = pair_up(read_answers(answers), read_answers(baseline))
    with closing(Journal(out / "judgments.jsonl")) as journal:
        known = {row.get("game"): row.get("verdict") for row in journal.rows if row.get("verdict")}
        games = {game.key(model): game for pair in pairs for game in pair}
        missing = {key: game for key, game in games.items() if key not in known}
        with Progress("verdicts", total=len(games), done=len(games) - len(missing)) as progress:

            def keep(row: Mapping[str, Any]) -> None:
                journal.append([row])
                known[row["game"]] = row["verdict"]
                progress.advance(1)

            try:
                asyncio.run(_ask_all(missing, endpoint, concurrency, keep))
            except EndpointError as error:
                error.add_note(f"the verdicts so far are kept in {out}")
                raise
    scores = {key: _score(known[key], game) for key, game in games.items()}
    result = win_rate([(scores[as_a.key(model)], scores[as_b.key(model)]) for as_a, as_b in pairs])
    report = {"answers": str(answers), "baseline": str(baseline), "judge": model, **asdict(result)}
    write_json(out / "win_rate.json", report)
    return result


def show(result: WinRate, out: Path) -> None:
    """The result as a table, and where the files are."""
    table = Table(show_header=False, box=None, pad_edge=False)
    if result.win_rate is not None:
        stderr = "" if result.stderr is None else f" ± {result.stderr:.3f}"
        table.add_row("win rate", f"{result.win_rate:.3f}{stderr}")
    table.add_row("pairs won, tied, lost", f"{result.wins}, {result.ties}, {result.losses}")
    table.add_row("verdict turned with the order", str(result.contradictions))
    table.add_row("pairs without a verdict", str(result.no_verdict))
    Console(highlight=False).print(table)
    print(f"files: {out}")


async def _ask_all(
    games: Mapping[str, Game],
    endpoint: Endpoint,
    concurrency: int,
    keep: Callable[[Mapping[str, Any]], None],
) -> None:
    """Give `keep` each verdict as it comes; the first failure cancels all that are still asked."""
    free = asyncio.Semaphore(concurrency)

    async def ask(key: str, game: Game) -> dict[str, Any]:
        async with free:
            text = await _ask(endpoint, game)
        return {"game": key, "verdict": verdict_of(text), "text": text}

    asking = [asyncio.create_task(ask(key, game)) for key, game in games.items()]
    try:
        for row in asyncio.as_completed(asking):
            keep(await row)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await endpoint.close()


async def _ask(endpoint: Endpoint, game: Game) -> str:
    for _ in range(ATTEMPTS):
        text = await endpoint.ask(game.question())
        if verdict_of(text) is not None:
            break
    return text


def _score(verdict: str | None, game: Game) -> float | None:
    return None if verdict is None else score_of(verdict, position=game.position)
