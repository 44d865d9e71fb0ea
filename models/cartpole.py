"""Balance a pole on a cart, in torch or in Gymnasium: one program, two environments.

A network gives the logits of two actions, left and right; each step earns a reward of 1, and an episode ends
when the pole falls. So the return is a count: there is nothing to differentiate, and the score function it is,
with the other episodes as a baseline:

    ExpectedReturn(ScoreFunction(LeaveOneOut(over="episodes")))

``simulator="torch"`` is batched and runs replicates under vmap; ``simulator="gymnasium"`` plays CartPole-v1
itself, in NumPy, and replicates run in a loop. Both have the same dynamics and the same initial states, so their
gradients have one distribution.

    ppgrad train models/cartpole.py --set simulator=gymnasium

Source: Barto, Sutton & Anderson (1983); Williams (1992).
"""

from __future__ import annotations

import torch

import ppgrad
from ppgrad.envs import CartPole, GymnasiumEnv


def balancing_policy(hidden: int = 32, seed: int = 0) -> ppgrad.CategoricalPolicy:
    """From the state to a push to the left or to the right.

    Args:
        hidden: units of the hidden layer.
        seed: of the initial weights; the global generators are left alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ppgrad.CategoricalPolicy(4, 2, hidden=(hidden,))


def problem(
    simulator: str = "torch", horizon: int = 200, episodes: int = 8, hidden: int = 32, seed: int = 0
) -> ppgrad.Problem:
    """A network that balances a pole.

    Args:
        simulator: ``"torch"`` or ``"gymnasium"``.
        horizon: the most steps of an episode; Gymnasium's has 500.
        episodes: size of the plate; the objective adds up over it.
        hidden: units of the hidden layer.
        seed: of the network's initial weights; the global generators are left alone.
    """
    if simulator not in ("torch", "gymnasium"):
        raise ppgrad.InvalidInput(f"simulator={simulator!r}: write 'torch' or 'gymnasium'.")
    env = CartPole() if simulator == "torch" else GymnasiumEnv("CartPole-v1")
    policy = balancing_policy(hidden, seed)
    return ppgrad.Problem(
        model=ppgrad.rollout(env, policy, horizon, episodes=episodes),
        objective=ppgrad.ExpectedReturn,
        about=f"balancing a pole, simulated by {simulator}",
        smooth=False,
        training={"estimator": "score+loo=episodes", "num_particles": 1, "steps": 60, "learning_rate": 0.03},
    )
