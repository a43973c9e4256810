"""An engine's sleep as vLLM on GPUs allows it: never from half awake, weights before keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlstack.config.schema import Policy, RunConfig, TransferMethod
from rlstack.rollout import engine as engine_module
from rlstack.rollout.engine import MEMORY, Engine


class Llm:
    """Stands for a vllm.LLM with sleep mode: its executor refuses or ignores what this one notes."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.asleep: set[str] = set()

    def get_tokenizer(self) -> None:
        return None

    def sleep(self, *, level: int) -> None:
        assert not self.asleep, "the executor takes it for asleep and leaves the rest awake"
        self.done.append(("sleep", level))
        self.asleep = set(MEMORY)

    def wake_up(self, *, tags: list[str]) -> None:
        assert set(tags) <= self.asleep, "the executor ignores all of it"
        self.done.append(("wake", *tags))
        self.asleep -= set(tags)

    def collective_rpc(self, method: str, *, args: tuple[Any, ...]) -> list[dict[str, Any]]:
        assert "weights" not in self.asleep
        figures = {"bytes": 8, "receive_s": 0.0, "wait_s": 0.0, "land_s": 0.0, "verified_version": args[0]}
        return [{"error": None, "fatal": False, **figures}]

    def reset_prefix_cache(self) -> bool:
        return True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, Llm]:
    llm = Llm()
    monkeypatch.setattr(engine_module, "load_llm", lambda config, index, max_prompt_tokens: llm)
    monkeypatch.setattr(engine_module, "can_sleep", lambda config: True)
    monkeypatch.setattr(engine_module, "load_tokenizer", lambda folder: None)
    monkeypatch.setattr(engine_module, "end_token_ids", lambda folder: [])
    return Engine(RunConfig(policy=Policy(model=str(Path("nowhere")))), index=0), llm


def test_it_sleeps_once_and_wakes_once(made: tuple[Engine, Llm]) -> None:
    engine, llm = made
    engine.wake()
    for _ in range(2):
        engine.sleep()
    for _ in range(2):
        engine.wake()
    assert llm.done == [("sleep", 1), ("wake", "weights", "kv_cache")]


def test_a_sync_finds_the_weights_and_leaves_it_awake(made: tuple[Engine, Llm]) -> None:
    engine, llm = made
    engine.sleep()
    for _ in range(2):
        engine.wake(weights_only=True)
    assert llm.done == [("sleep", 1), ("wake", "weights")]
    assert engine.commit_receive(3, TransferMethod.reshard)["verified"]
    assert llm.done[2:] == [("wake", "kv_cache")]
    assert llm.asleep == set()


def test_it_is_fully_awake_before_it_sleeps_again(made: tuple[Engine, Llm]) -> None:
    engine, llm = made
    engine.sleep()
    engine.wake(weights_only=True)
    engine.sleep()
    assert llm.done == [("sleep", 1), ("wake", "weights"), ("wake", "kv_cache"), ("sleep", 1)]


def test_nothing_is_sampled_asleep(made: tuple[Engine, Llm]) -> None:
    engine, _ = made
    engine.sleep()
    with pytest.raises(AssertionError, match="wake comes first"):
        list(engine.generate_stream([], n=1, temperature=1.0, top_p=1.0, seeds=[]))
