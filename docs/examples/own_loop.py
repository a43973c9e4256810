"""A loop of your own from rlstack's parts: it syncs when the policy has drifted, not after so many steps.

python docs/examples/own_loop.py
"""

import rlstack

MAX_DRIFT = 0.01  # nats per token: generator against policy

config = rlstack.load_config(
    "configs/quickstart.yaml",
    [
        "run.name=own-loop",
        "schedule.num_steps=15",
        "schedule.sync_interval=null",
        "evaluation.num_prompts=40",
    ],
)
with rlstack.Session(config) as session:
    for step in range(config.schedule.num_steps):
        prompts = session.prompts.take(step, config.batch.prompts_per_step)
        groups = session.sample(prompts)
        scored = session.score(groups)
        credit = rlstack.assign(scored, config.objective, seed=config.run.seed, step=step)
        metrics = session.train_step(credit.examples) | credit.metrics()
        if metrics.get("drift/logprob_abs_mean", 0.0) > MAX_DRIFT:
            metrics |= session.sync()
        session.log(metrics, scored)
    session.sync()
    print("held-out accuracy:", session.evaluate()["eval/accuracy"])
    print("the model:", session.export())
