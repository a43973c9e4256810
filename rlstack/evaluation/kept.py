"""The answers that an evaluation's folder holds already, and those that it still lacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlstack.data.journal import Journal
from rlstack.data.records import Prompt
from rlstack.errors import ConfigError
from rlstack.evaluation.answers import AnsweredPrompt


class KeptAnswers:
    """answers.jsonl, by task and row; the last line for a row counts."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError if the file is another process's or holds something else."""
        path = folder / "answers.jsonl"
        self._journal = Journal(path)
        try:
            self._by_row = {(a.task, a.row): a for a in map(AnsweredPrompt.from_row, self._journal.rows)}
        except (KeyError, ValueError, TypeError) as error:
            self.close()
            raise ConfigError(f"{path}: is not of an evaluation ({error!r}); give another --out") from None

    def missing(self, prompts: Sequence[Prompt]) -> list[int]:
        """The positions in `prompts` of those without answers."""
        return [i for i, prompt in enumerate(prompts) if not self._has(prompt)]

    def keep(self, chunk: Sequence[AnsweredPrompt]) -> None:
        """Write them to the file."""
        self._journal.append(answers.to_row() for answers in chunk)
        self._by_row |= {(answers.task, answers.row): answers for answers in chunk}

    def of(self, prompts: Sequence[Prompt]) -> list[AnsweredPrompt]:
        """The answers to `prompts`, none of which is missing."""
        return [self._by_row[prompt.task, prompt.row] for prompt in prompts]

    def close(self) -> None:
        """Let another process have the file."""
        self._journal.close()

    def _has(self, prompt: Prompt) -> bool:
        answers = self._by_row.get((prompt.task, prompt.row))
        return answers is not None and answers.answers(prompt)
