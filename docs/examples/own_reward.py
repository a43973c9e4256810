"""Train with a reward of your own: a function of the problem, its answer and the model's responses.

python docs/examples/own_reward.py
"""

from collections.abc import Sequence

import rlstack


def near(problem: str, answer: str | None, responses: Sequence[str]) -> list[float]:
    """1 for the right answer at the end of a response, up to 0.5 for working towards it."""

    def reward(response: str) -> float:
        boxed = response.rpartition("boxed{")[2].partition("}")[0]
        return 1.0 if boxed == answer else min(response.count("="), 5) / 10

    return [reward(response) for response in responses]


config = rlstack.load_config(
    "configs/quickstart.yaml",
    ["run.name=own-reward", "schedule.num_steps=20", "evaluation.num_prompts=40"],
)
folder = rlstack.run(config, rewards={"fractions": near})

record = rlstack.read_record(folder)
first, last = record.steps[0], record.steps[-1]
print(f"reward {first['reward/mean']:.2f} -> {last['reward/mean']:.2f}; open {folder / 'report.html'}")
