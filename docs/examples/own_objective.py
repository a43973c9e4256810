"""Train with an objective of your own: IPO (arXiv 2310.12036, Eq. 17) in place of DPO's loss, on its pairs.

python docs/examples/own_objective.py
"""

from dataclasses import dataclass

import rlstack


@dataclass(frozen=True)
class Ipo:
    """The sum over pairs of (log-ratio of the chosen - log-ratio of the rejected - 1 / (2 tau))^2."""

    tau: float = 0.1
    needs_reference: bool = True
    needs_entropy_gradient: bool = False

    def __call__(self, inputs: rlstack.LossInputs) -> rlstack.LossOutput:
        assert inputs.reference_logprobs is not None  # as needs_reference says
        policy = rlstack.rollout_sums(inputs.policy_logprobs, inputs)
        reference = rlstack.rollout_sums(inputs.reference_logprobs, inputs)
        margins = rlstack.dpo_margins(policy, reference, inputs.pairs, beta=1.0)
        loss = (inputs.pair_weights * (margins - 1 / (2 * self.tau)) ** 2).sum()
        num_pairs = inputs.pair_weights.sum()
        metrics = {
            "loss/total": rlstack.Ratio(loss.detach(), num_pairs),
            "custom/ipo_margin": rlstack.Ratio((inputs.pair_weights * margins).sum().detach(), num_pairs),
            "policy/entropy": rlstack.entropy_mean(inputs),
        }
        return rlstack.LossOutput(loss=loss, metrics=metrics)


config = rlstack.load_config("configs/quickstart.yaml", ["run.name=ipo", "schedule.num_steps=20"])
rlstack.run(config, loss=Ipo(tau=0.2))
