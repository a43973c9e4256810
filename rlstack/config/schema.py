"""Every setting of a run, with its default and its unit.

Structured configs for OmegaConf: a key that is not a field here is refused, and so is a value of another
type. A default lives on its field and nowhere else. `None` means "never" or "not set", never -1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rlstack.config.alarms import Alarms


class Precision(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp8 = "fp8"  # weights in bf16, the layers' products of matrices in FP8; needs a GPU


class Fp8Recipe(StrEnum):
    """Which values share a scale, and what it is computed from; Transformer Engine's names."""

    blockwise = "blockwise"  # 128 x 128 of a weight, 1 x 128 of an activation; from the values themselves
    tensorwise = "tensorwise"  # a whole tensor; from the values themselves
    delayed = "delayed"  # a whole tensor; from the largest values of steps before


class Fp8Format(StrEnum):
    auto = "auto"  # e4m3 for blockwise, hybrid for the other recipes
    e4m3 = "e4m3"
    hybrid = "hybrid"  # e5m2 for gradients of activations, e4m3 for the rest


class AmaxAlgorithm(StrEnum):
    max = "max"
    most_recent = "most_recent"


class RolloutPrecision(StrEnum):
    auto = "auto"  # policy.precision; bf16 for a policy in fp8, whose weights are bf16
    fp32 = "fp32"
    bf16 = "bf16"
    fp8 = "fp8"  # the linear layers but the head, quantised when loaded and after every sync


class Fp8Scaling(StrEnum):
    """Which values of a weight share a scale in an engine."""

    channel = "channel"  # a row; a token of an activation
    tensor = "tensor"  # the whole weight
    block = "block"  # 128 x 128; 1 x 128 of an activation


class Recompute(StrEnum):
    """Which activations are computed once more for the backward pass instead of kept."""

    none = "none"
    selective = "selective"  # those inside each layer's MLP, most of what a layer keeps
    full = "full"  # all but each layer's input


class Fusions(StrEnum):
    auto = "auto"  # on GPUs: rotary embeddings, SwiGLU, and weight gradients that are added up in place
    none = "none"


class LogprobKernel(StrEnum):
    auto = "auto"  # triton on GPUs that have it, or liger where that was measured to be faster; else torch
    torch = "torch"
    triton = "triton"
    liger = "liger"  # of the package liger-kernel, with logprob_mode auto or recompute
    reference = "reference"  # fp64, all logits at once: to check the others with


class LogprobMode(StrEnum):
    auto = "auto"  # save while it fits policy.logprob_save_gib
    save = "save"  # what the backward pass needs of the logits is kept, in the weights' precision
    recompute = "recompute"  # the logits are computed once more


class ObjectiveName(StrEnum):
    dpo = "dpo"  # one pair of each prompt's rollouts
    group_dpo = "group_dpo"  # all pairs of each prompt's rollouts
    grpo = "grpo"
    group_dpo_grpo = "group_dpo_grpo"  # group_dpo + alpha x grpo


class CutOff(StrEnum):
    """What becomes of rollouts that are cut off at rollout.max_new_tokens; rlstack/credit/cut_off.py."""

    train = "train"  # they are trained on as all others
    mask = "mask"  # no loss: in no pair; under grpo their rewards still count in the group's mean
    penalty = "penalty"  # rewards fall with the length, the closer it comes to the limit


class Selection(StrEnum):
    accuracy = "accuracy"  # mean held-out accuracy of the verifiable tasks
    length_normalised_reward = "length_normalised_reward"  # mean over the other tasks
    mean = "mean"  # of the two; of the one that there is if the tasks are all of one kind


class Template(StrEnum):
    """The texts are in rlstack/data/templates.py."""

    math = "math"  # the paper's Figure 4
    chat = "chat"  # Figure 5, the bare instruction


class RewardEngine(StrEnum):
    auto = "auto"  # vllm on GPUs where it can load the model, otherwise transformers
    vllm = "vllm"
    transformers = "transformers"


class TransferMethod(StrEnum):
    gather = "gather"  # each pipeline stage broadcasts its whole tensors; all stand still, whatever the lag
    gather_rank0 = "gather_rank0"  # rank 0 broadcasts the whole model
    reshard = "reshard"


class TransferChannel(StrEnum):
    auto = "auto"  # ipc where policy and engines share GPUs, otherwise network
    network = "network"  # gloo or nccl
    ipc = "ipc"  # memory that both sides map; for processes of one host


class Placement(StrEnum):
    # The name is that of a method of str, which is not called here.
    split = "split"  # type: ignore[assignment]  # policy and engines have GPUs of their own
    colocated = "colocated"  # the engines share the policy's GPUs and sleep while it trains


class Landing(StrEnum):
    auto = "auto"
    staged = "staged"
    direct = "direct"


@dataclass(slots=True)
class Run:
    name: str = "run"  # the run's folder below `dir`
    dir: str = "runs"  # relative to the working directory
    seed: int = 0  # of prompts' order, sampling and ties
    deterministic: bool = False  # the same bits again on the same machines; slower on GPUs


@dataclass(slots=True)
class Adaptive:
    """How `schedule.sync_interval=auto` chooses s; rlstack/orchestration/adaptive.py says by which rule."""

    start: int = 10  # s until the first sync
    min: int = 1  # s is never smaller
    max: int = 100  # s is never larger
    max_drift: float = 0.02  # nats per token: generator against policy, at an interval's end
    max_sync_share: float | None = None  # syncs' share of the time to settle for; makes s depend on timing
    replay: str | None = None  # intervals.jsonl of a run whose choices of s are taken once more


@dataclass(slots=True)
class Schedule:
    num_steps: int = 100  # optimiser steps
    sync_interval: int | str | None = 1  # s: steps between syncs; null = offline; auto = adapts to the drift
    adaptive: Adaptive = field(default_factory=Adaptive)
    lag: int = 0  # steps by which the generator's version may trail at a sync, which from 1 on idles nobody
    reference_sync: str | int = "with_generator"  # never | with_generator | every this many steps
    evaluate_every: int | None = None  # steps; the first and the last version are always evaluated
    save_every: int | None = 50  # steps between checkpoints, and the last version is saved too; null = none


@dataclass(slots=True)
class Fp8:
    """Of policy.precision=fp8."""

    recipe: Fp8Recipe = Fp8Recipe.blockwise  # which values share a scale
    format: Fp8Format = Fp8Format.auto  # of the eight bits
    margin: int = 0  # of delayed: scales are smaller by 2 ** margin
    amax_history_len: int = 1024  # of delayed: micro-batches that a scale is computed from
    amax_compute_algo: AmaxAlgorithm = AmaxAlgorithm.max  # of delayed: which of their largest values counts
    bf16_layers_at_start: int = 0  # layers that stay in bf16; not with delayed
    bf16_layers_at_end: int = 0  # likewise


@dataclass(slots=True)
class Policy:
    model: str = "???"  # Hugging Face folder: config.json, *.safetensors, tokenizer
    tensor_parallel: int = 1  # ranks that share each layer's matrices
    pipeline_parallel: int = 1  # stages that the layers are shared among
    context_parallel: int = 1  # ranks that share the tokens of each sequence
    data_parallel: int = 1  # copies of the policy, each of which trains on a part of a step
    sequence_parallel: bool = False  # tensor-parallel ranks share the tokens too, between the matrices
    virtual_pipeline: int = 1  # chunks of layers per pipeline stage; more make the pipeline's bubble smaller
    pipeline_layers: list[int] | None = None  # of each chunk, in the model's order; null = equal numbers
    recompute: Recompute = Recompute.none  # activations to compute again instead of keeping them
    recompute_layers: int | None = None  # of each chunk, with recompute=full; null = all of them
    optimizer_offload: bool = False  # the optimiser's state lies in host memory between its steps
    fusions: Fusions = Fusions.auto  # fused kernels of the layers
    overlap_grad_reduce: bool | None = None  # reduce gradients during the backward pass; null = on GPUs
    overlap_param_gather: bool | None = None  # gather new weights in the next forward pass; null = on GPUs
    overlap_bucket_size: int | None = None  # elements exchanged at once, at least; null = 40 million or more
    precision: Precision = Precision.fp32  # gradients and the optimiser's weights are fp32 always
    fp8: Fp8 = field(default_factory=Fp8)
    logprob_kernel: LogprobKernel = LogprobKernel.auto  # by which code logprobs and entropy come
    logprob_mode: LogprobMode = LogprobMode.auto  # what it keeps for the backward pass
    logprob_save_gib: float | None = None  # per rank and micro-batch; null = 1, on CPU 1/16
    micro_batch_tokens: int = 8192  # token budget of one packed micro-batch; a single example may exceed it
    start_timeout_s: float = 300.0  # for the ranks to build and load the model
    step_timeout_s: float = 1800.0  # for one training step


@dataclass(slots=True)
class Optimizer:
    lr: float = 1e-6  # learning rate
    warmup_steps: int = 0  # linear from 0, then constant
    adam_beta1: float = 0.9  # decay of the mean of gradients
    adam_beta2: float = 0.95  # decay of the mean of their squares
    adam_eps: float = 1e-8  # added to the root of the latter
    weight_decay: float = 0.0  # AdamW's, not of norms and biases
    clip_grad: float = 1.0  # global norm; 0 = no clipping
    max_skipped_steps: int = 5  # in a row, as loss or gradient was not finite; then the run ends


@dataclass(slots=True)
class Rollout:
    engines: int = 1  # copies of vLLM
    tensor_parallel: int = 1  # ranks of each engine
    precision: RolloutPrecision = RolloutPrecision.auto  # of the engines' weights
    fp8_scaling: Fp8Scaling = Fp8Scaling.channel  # of precision=fp8
    fp32_head: bool = True  # logits of bf16 and fp8 engines are fp32, as the policy's; false: bf16
    n: int = 8  # rollouts per prompt
    temperature: float = 1.0  # 1 samples what the policy is; tis_cap and clip_ratio_* do not undo another
    top_p: float = 1.0  # share of the probability that is sampled from
    max_new_tokens: int = 1024  # of an answer, end token included
    max_num_seqs: int = 256  # sequences decoded together by one engine
    overlap: bool = True  # sample, score and train side by side; false: in turns, with the same results
    max_steps_ahead: int = 16  # training steps whose rollouts may wait to be trained on, in memory
    max_ahead_gib: float = 16.0  # memory of rollouts that wait, at full length; one step always may
    kv_cache_gib: float = 1.0  # per engine rank, on CPU
    gpu_memory_fraction: float = 0.85  # of a GPU, for weights and cache
    start_timeout_s: float = 600.0  # for the engines to load the model
    generate_timeout_s: float = 1800.0  # until an engine has finished the rollouts of another prompt


@dataclass(slots=True)
class Objective:
    name: ObjectiveName = ObjectiveName.dpo  # what is trained on a step's rewards
    loss: str | None = None  # package.module:attribute of your own, in place of the formula of `name`
    beta: float = 0.1  # DPO's inverse temperature
    kl_scale: float = 0.0  # GRPO's KL to the reference (k3 estimator)
    alpha: float = 0.01  # weight of GRPO in group_dpo_grpo
    nll_scale: float = 0.0  # negative log-likelihood of the chosen rollouts
    nll_length_normalised: bool = True  # its mean over a rollout's tokens instead of the sum
    entropy_scale: float = 0.0  # reward for entropy, summed over a rollout's tokens (nats)
    length_normalised: bool = False  # means over a rollout's tokens instead of sums: logprobs, GRPO, entropy
    std_normalised: bool = False  # advantages divided by the standard deviation of the group's rewards
    clip_ratio_low: float | None = None  # GRPO's ratio to the generator is clipped at 1 - this (PPO)
    clip_ratio_high: float | None = (
        None  # and at 1 + this; both null: no ratio, the rollouts count as on-policy
    )
    tis_cap: float | None = (
        None  # most weight of a token in GRPO: its ratio to the generator at temperature 1
    )
    cut_off: CutOff = CutOff.train  # what becomes of rollouts that rollout.max_new_tokens has cut off
    cut_off_penalty: float = 1.0  # of cut_off=penalty, in the reward's unit: the most that a reward loses
    cut_off_buffer_tokens: int | None = None  # of it: tokens below the limit; null = a fifth of the limit


@dataclass(slots=True)
class Batch:
    prompts_per_step: int = 16  # of which rollout.n rollouts each are trained on


@dataclass(slots=True)
class Task:
    name: str = "???"  # which metrics and samples carry
    path: str = "???"  # JSONL or .parquet file, or the folder of a Hugging Face dataset
    split: str | None = None  # of a folder that holds several, such as "train"
    problem_field: str = "problem"  # of a row: a text
    answer_field: str = "answer"  # only verifiable tasks need it
    template: Template = Template.math  # of the prompt, around the problem
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)  # variables of the chat template
    reward: str = "math"  # math | the name of one of reward.models | a plug-in, package.module:attribute
    weight: float = 1.0  # share of the prompts, relative to the other tasks


@dataclass(slots=True)
class Data:
    tasks: list[Task] = field(default_factory=list)
    max_unverifiable: float = 0.05  # share of a task's gold answers that no answer in a box could equal
    filter_overlong: bool = False  # leave prompts out that are too long for the context, and say how many


@dataclass(slots=True)
class RewardModel:
    name: str = "???"  # what a task's `reward` says to be scored by this model
    path: str = "???"  # Hugging Face folder: a sequence classifier with one output, its tokenizer
    engine: RewardEngine = RewardEngine.auto  # what runs it
    tensor_parallel: int = 1  # of vllm
    num_actors: int = 1  # copies of the model, each in a process of its own
    max_tokens: int | None = None  # of prompt and answer; what is longer is cut; null = the model's context
    batch_tokens: int = 16384  # of one forward pass, padding included; one answer may exceed it
    gpu_memory_fraction: float = 0.85  # of vllm
    start_timeout_s: float = 600.0  # for its processes to load it
    timeout_s: float = 600.0  # for one step's rollouts


@dataclass(slots=True)
class Reward:
    workers: int | str = (
        "auto"  # of the math verifier, and of each plug-in; auto = this machine's cores, and 1
    )
    timeout_s: float = 5.0  # wall-clock limit of one verification
    plugin_timeout_s: float = 60.0  # wall-clock limit of one call of a plug-in: the answers to one prompt
    plugin_start_timeout_s: float = 120.0  # for a plug-in to be imported and made
    models: list[RewardModel] = field(default_factory=list)


@dataclass(slots=True)
class Evaluation:
    tasks: list[Task] = field(default_factory=list)
    num_prompts: int | None = None  # the first this many of each task; null = all
    n: int = 4  # answers per prompt
    temperature: float = 0.6  # 0 = greedy, with n = 1
    top_p: float = 0.9  # share of the probability that is sampled from
    selection: Selection = Selection.mean  # by which measure the best version is told


@dataclass(slots=True)
class Transfer:
    method: TransferMethod = TransferMethod.reshard  # which needs room for a second copy of an engine's shard
    landing: Landing = Landing.auto  # of reshard: into live parameters, or through vLLM's own loader
    channel: TransferChannel = TransferChannel.auto  # of reshard
    bucket_mib: int = 256  # of weights sent at once
    timeout_s: float = 300.0  # for one sync


@dataclass(slots=True)
class Checkpoint:
    """What is kept below `run.dir`/`run.name`/checkpoints; `schedule.save_every` says when one is written."""

    keep_last: int = 2  # the newest ones
    keep_best: int = 1  # by eval/selection; those without one are not among the best
    timeout_s: float = 600.0  # for the ranks to write or to read one
    interrupt_timeout_s: float = 600.0  # for the first Ctrl-C or SIGTERM to end the step and save it


@dataclass(slots=True)
class Recovery:
    max_restarts: int = 3  # replacements begun within window_s; 0: the first failure ends the run
    window_s: float | None = 3600.0  # for which, and until a further step, one counts; null: for ever


@dataclass(slots=True)
class Cluster:
    address: str | None = None  # of a running Ray cluster; null starts one on this machine, on loopback
    placement: Placement = Placement.split  # of policy and engines on GPUs
    placement_timeout_s: float = 120.0  # for its processors to be free and its nodes to answer
    port_range: list[int] | None = None  # first and last port of the run's own services; null = free ones
    env: dict[str, str] = field(default_factory=dict)  # of every role: those that tune the network
    ranks_per_core: int = 4  # CPU only: how far processes may outnumber the cores
    object_store_mib: int = 256  # of the Ray that this run starts
    shutdown_timeout_s: float = 8.0  # for the processes to end by themselves


@dataclass(slots=True)
class Telemetry:
    profile_steps: list[int] | None = None  # first and last step to trace with torch's profiler; null = none
    timeline_steps: list[int] | None = None  # first and last to keep all spans of; null = the first 250,000
    rollouts: str = (
        "all"  # all | sample:N | none; of which prompts of each step rollouts.jsonl has the rollouts
    )
    rollouts_max_gib: float = 32.0  # of rollouts.jsonl and its shards; the oldest shards above it are removed
    peak_tflops: float | None = None  # of a policy rank, for throughput/mfu; null = the GPU's data sheet's
    tensorboard: bool = False  # event files in the run's folder, below tensorboard/
    wandb: str | None = None  # W&B's PROJECT or ENTITY/PROJECT; null = off
    mlflow: str | None = None  # MLflow's tracking URI: http://HOST:PORT, or sqlite:///FILE; null = off


@dataclass(slots=True)
class RunConfig:
    run: Run = field(default_factory=Run)
    schedule: Schedule = field(default_factory=Schedule)
    policy: Policy = field(default_factory=Policy)
    optimizer: Optimizer = field(default_factory=Optimizer)
    rollout: Rollout = field(default_factory=Rollout)
    objective: Objective = field(default_factory=Objective)
    batch: Batch = field(default_factory=Batch)
    data: Data = field(default_factory=Data)
    reward: Reward = field(default_factory=Reward)
    evaluation: Evaluation = field(default_factory=Evaluation)
    transfer: Transfer = field(default_factory=Transfer)
    alarms: Alarms = field(default_factory=Alarms)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    recovery: Recovery = field(default_factory=Recovery)
    cluster: Cluster = field(default_factory=Cluster)
    telemetry: Telemetry = field(default_factory=Telemetry)
