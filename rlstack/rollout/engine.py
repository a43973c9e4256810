"""One vLLM engine and the version of the weights that it holds.

Everything of vLLM's that this project calls is in this file, load.py and continuous.py, for the weights in
`rlstack.transfer`: landing.py, vllm_engine.py, bake.py, scatter.py and plugin.py, and for reward models in
`rlstack.rewards.vllm_engine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlstack.config.parallel import num_policy_ranks
from rlstack.config.schema import RunConfig, TransferMethod
from rlstack.data.records import Prompt, Rollout
from rlstack.data.tokenizer import load_tokenizer
from rlstack.model.files import end_token_ids
from rlstack.rollout.continuous import run_continuously
from rlstack.rollout.load import can_sleep, load_llm
from rlstack.rollout.sampling import to_rollout
from rlstack.rollout.turns import Turns
from rlstack.transfer.errors import LandingError, TransferError

WEIGHTS = "weights"
MEMORY = frozenset({WEIGHTS, "kv_cache"})  # vLLM's names for the parts that it can give up


class Engine:
    """Generates rollouts with one model replica; a plain class, which Ray wraps as an actor.

    Not for concurrent calls, open_transfer(), begin_receive() and drop_streams() apart: a call finds the
    weights of one version from beginning to end.
    """

    def __init__(self, config: RunConfig, *, index: int, max_prompt_tokens: int | None = None) -> None:
        """Load `config.policy.model` as version 0; `index` tells the engines of a run apart.

        max_prompt_tokens: the longest prompt that it will get; None: as long as the model's context takes.
        """
        self._llm: Any = load_llm(config, index=index, max_prompt_tokens=max_prompt_tokens)
        self._tokenizer: Any = load_tokenizer(Path(config.policy.model))
        self._turns = Turns()
        self._max_num_seqs = config.rollout.max_num_seqs
        self._max_new_tokens = config.rollout.max_new_tokens
        self._transfer = config.transfer
        self._num_stages = config.policy.pipeline_parallel
        self._num_sources = num_policy_ranks(config.policy)
        self._stop_token_ids = end_token_ids(Path(config.policy.model))
        self._version = 0
        self._first_needed = 0  # of the streams, by their numbers
        self._broken: str | None = None  # why the engine must not serve any more
        self._asleep = frozenset[str]()  # of MEMORY
        self._can_sleep = can_sleep(config)

    @property
    def version(self) -> int:
        """Optimiser steps taken by the weights that the engine holds."""
        return self._version

    def warm_up(self) -> None:
        """Pay for what the first rollouts would: kernels chosen or compiled on first use."""
        prompt = Prompt(task="warm_up", row=0, problem="", token_ids=np.zeros(1, np.int32))
        self.generate([prompt], n=2, temperature=1.0, top_p=1.0, seeds=[0])

    def generate(
        self, prompts: Sequence[Prompt], *, n: int, temperature: float, top_p: float, seeds: Sequence[int]
    ) -> list[tuple[Rollout, ...]]:
        """As generate_stream, all at once: the rollouts in the order of the prompts."""
        stream = self.generate_stream(prompts, n=n, temperature=temperature, top_p=top_p, seeds=seeds)
        finished = dict(pair for some in stream for pair in some)
        return [finished[place] for place in range(len(prompts))]

    def generate_stream(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        temperature: float,
        top_p: float,
        seeds: Sequence[int],
        version: int | None = None,
        number: int | None = None,
        is_profiled: bool = False,
    ) -> Iterator[list[tuple[int, tuple[Rollout, ...]]]]:
        """`n` rollouts of each prompt, as (place of the prompt, its rollouts) once all of them have ended.

        `seeds` has one number per prompt and makes its rollouts independent of the others in the batch;
        rollout k is sampled with seed + k. Up to rollout.max_new_tokens tokens, fewer where the context ends.
        Prompts are begun in their order. To be run to its end, which comes at once if its `number` is
        dropped; see drop_streams. is_profiled: leave a trace of it in the run's folder.

        Raises LandingError if a sync has left the engine without a whole set of weights; TransferError if it
        holds another version than `version`, where one is given.
        """
        if self._broken:
            raise LandingError(self._broken)
        assert not self._asleep, "wake comes first"
        if not self._is_needed(number):
            return
        if version not in (None, self._version):
            raise TransferError(f"asked for rollouts of version {version}, it holds {self._version}")
        from vllm import SamplingParams

        requests = [
            (
                {"prompt_token_ids": prompt.token_ids.tolist()},
                SamplingParams(
                    n=n,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                    max_tokens=self._max_new_tokens,
                    logprobs=0,  # of the sampled token and no others
                    stop_token_ids=self._stop_token_ids,
                    detokenize=False,  # token by token, which takes longer than once at the end
                ),
            )
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        with self._turns.at_work(), self._traced(is_profiled):
            for finished in run_continuously(
                self._llm,
                requests,
                max_num_seqs=self._max_num_seqs,
                between_steps=self._turns.give_way,
                is_needed=partial(self._is_needed, number),
            ):
                yield [(place, self._rollouts(output)) for place, output in finished]

    @contextmanager
    def _traced(self, is_profiled: bool) -> Iterator[None]:
        """Within, vLLM's workers are traced by torch's profiler; each leaves a file at the end."""
        if not is_profiled:
            yield
            return
        self._llm.start_profile()
        try:
            yield
        finally:
            self._llm.stop_profile()

    def sleep(self) -> None:
        """Give the GPU's memory up: the weights go to the host's, keys and values are forgotten.

        Where vLLM's platform has no such thing, as on the CPU, everything stays where it is.
        """
        if self._asleep == MEMORY:
            return
        self.wake()  # vLLM takes an engine that is half asleep for one that sleeps
        self._asleep = MEMORY
        if self._can_sleep:
            self._llm.sleep(level=1)

    def wake(self, *, weights_only: bool = False) -> None:
        """Take the memory again that sleep() gave up; an engine that is awake stays so.

        weights_only: for a sync, at the end of which the rest follows.
        """
        parts = self._asleep & {WEIGHTS} if weights_only else self._asleep
        if parts and self._can_sleep:
            self._llm.wake_up(tags=sorted(parts, reverse=True))  # weights first
        self._asleep -= parts

    def drop_streams(self, *, before: int) -> None:
        """Let those with lower numbers end, whether they have begun or not. From any thread."""
        self._first_needed = before

    def _is_needed(self, number: int | None) -> bool:
        return number is None or number >= self._first_needed

    def _rollouts(self, output: Any) -> tuple[Rollout, ...]:
        return tuple(
            to_rollout(completion, version=self._version, decode=self._decode)
            for completion in output.outputs
        )

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def open_transfer(
        self, host: str, port: int, *, method: TransferMethod, first_receiver: int, num_receivers: int
    ) -> None:
        """Connect this engine's workers with the policy's ranks through the store at (`host`, `port`).

        The workers are receivers `first_receiver` and up of `num_receivers`, counted over all engines. Blocks
        until all sides have come. Every method can be open besides the others; opening one again ends what it
        had before. May be called while another thread generates, between two tokens of which it opens.

        Raises TransferError if someone does not come, or if the policy's weights do not fill the engine's.
        """
        timeout_s = self._transfer.timeout_s
        if method is not TransferMethod.reshard:
            num_senders = self._num_stages if method is TransferMethod.gather else 1
            peers = (num_senders, first_receiver, num_receivers)
            self._turns.do(lambda: self._call("open_gather", method.value, host, port, *peers, timeout_s))
            return
        init_info = {
            "store_host": host,
            "store_port": port,
            "num_sources": self._num_sources,
            "first_receiver": first_receiver,
            "num_receivers": num_receivers,
            "bucket_bytes": self._transfer.bucket_mib * 2**20,
            "timeout_s": timeout_s,
            "landing": self._transfer.landing.value,
            "channel": self._transfer.channel.value,
        }
        self._turns.do(lambda: self._call("open_reshard", init_info))

    def begin_receive(self, version: int, method: TransferMethod, receivers: list[int] | None = None) -> None:
        """Let the policy's weights of `version` come in while the engine goes on with those that it has.

        receivers: those that take part, this engine's workers among them; None: all.

        May be called while another thread generates, between two tokens of which it begins. With the gather
        methods the weights come in only when they are committed.
        """
        if method is TransferMethod.reshard:
            self._turns.do(lambda: self._call("begin_reshard", version, receivers))

    def commit_receive(self, version: int, method: TransferMethod) -> dict[str, Any]:
        """Take over the policy's weights of `version`, which was begun.

        Returns `bytes` (over this engine's workers), `receive_s`, `wait_s` (of it, after this call) and
        `land_s` (of the slowest worker), `verified` (1.0 if every worker verified this version), and
        `workers`, the same for each of them.

        Raises TransferError with `version` as it was; LandingError if the engine is of no use any more.
        """
        if method is TransferMethod.reshard:
            workers = self._call("commit_reshard", version)
        else:
            workers = self._call("receive_gather", method.value, version)
        if self._llm.reset_prefix_cache() is False:  # its keys and values are of the old weights
            self._broken = "the prefix cache still holds what the old weights computed"
            raise LandingError(self._broken)
        self._version = version
        self.wake()
        slowest = {key: max(w[key] for w in workers) for key in ("receive_s", "wait_s", "land_s")}
        return {
            "bytes": sum(w["bytes"] for w in workers),
            **slowest,
            "verified": float(all(w["verified_version"] == version for w in workers)),
            "workers": workers,
        }

    def probe(self, token_ids: Sequence[int]) -> tuple[float, ...]:
        """The logprobs of token_ids[1:], each given those before it, with the engine's weights."""
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)
        prompt = {"prompt_token_ids": list(token_ids)}
        (output,) = self._llm.generate([prompt], [parameters], use_tqdm=False)
        self._llm.reset_prefix_cache()  # or rollouts of a prompt that begins so would be computed otherwise
        scored = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
        return tuple(logprobs[token].logprob for token, logprobs in scored)

    def quantised_weights(self) -> list[str]:
        """Hugging Face names of the weights that the engine multiplies with in FP8."""
        answers = self._call("quantised")
        return sorted({name for answer in answers for name in answer["names"].split()})

    def _call(self, method: str, *args: Any) -> list[dict[str, Any]]:
        """A method of WeightLanding on all workers; raises what one of them could not do."""
        answers: list[dict[str, Any]] = self._llm.collective_rpc(f"rlstack_{method}", args=args)
        troubles = [f"worker {i}: {a['error']}" for i, a in enumerate(answers) if a["error"]]
        if any(answer["fatal"] for answer in answers):
            self._broken = "; ".join(troubles)
            raise LandingError(self._broken)
        if troubles:
            raise TransferError("; ".join(troubles))
        return answers

    def close(self) -> None:
        """End the processes that vLLM started."""
        self._llm.llm_engine.engine_core.shutdown()
