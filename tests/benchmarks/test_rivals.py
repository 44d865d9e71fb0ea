"""A rival does the same: its gradients are distributed as ppgrad's are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import ppgrad
from benchmarks.models import load
from benchmarks.programs.rollout import ESTIMATORS
from benchmarks.rivals import by_hand
from benchmarks.rivals.pyro_rollouts import ELBOS, PyroRollout
from benchmarks.rollouts import CATEGORICAL, GAUSSIAN, SCALAR, Kind
from ppgrad.testing.conformance import SUITE_FAILURE_RATE

FAILURE_RATE = SUITE_FAILURE_RATE / 100
RUNS = 800
EPISODES, STEPS = 4, 2


def gradients(backward: Callable[[], object], named: Mapping[str, Tensor], runs: int = RUNS) -> dict[str, np.ndarray]:
    """Draws of what ``backward`` adds to each parameter's gradient, in the direction of ascent."""
    draws: dict[str, list[Tensor]] = {name: [] for name in named}
    for _ in range(runs):
        for leaf in named.values():
            leaf.grad = None
        backward()
        for name, leaf in named.items():
            draws[name].append(torch.zeros_like(leaf) if leaf.grad is None else -leaf.grad.clone())
    return {name: torch.stack(each).reshape(runs, -1).numpy() for name, each in draws.items()}


def of_ppgrad(objective: ppgrad.Objective, *program: Any, args: tuple[Any, ...]) -> dict[str, np.ndarray]:
    found = ppgrad.measure(objective, *program, args=args, replicates=RUNS, seed=1)
    return {name.partition(".")[2] or name: draw.reshape(RUNS, -1).numpy() for name, draw in found.draws.items()}


def check_alike(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], test: Callable[..., Any]) -> None:
    """Compare a few components of each parameter, those of most variance; the p-values are for all of them."""
    assert ours.keys() == theirs.keys()
    p_values = []
    for name, draws in ours.items():
        for i in np.argsort(-draws.var(0))[:5]:
            assert draws[:, i].var() > 0, name
            p_values.append(test(draws[:, i], theirs[name][:, i]).pvalue)
    assert min(p_values) * len(p_values) > FAILURE_RATE


def welch(one: np.ndarray, other: np.ndarray) -> Any:
    return stats.ttest_ind(one, other, equal_var=False)


HAND: dict[str, tuple[Kind, str, Callable[..., Tensor], tuple[Any, ...]]] = {
    f"{kind.name}-{estimator}-{loss.__name__}": (kind, estimator, loss, () if estimator == "pathwise" else (loo,))
    for kind, estimator, loo, losses in (
        (SCALAR, "score", False, (by_hand.score_function, by_hand.stacked_score_function)),
        (CATEGORICAL, "score+loo", True, (by_hand.score_function, by_hand.stacked_score_function)),
        (GAUSSIAN, "score+loo", True, (by_hand.score_function, by_hand.stacked_score_function)),
        (GAUSSIAN, "pathwise", False, (by_hand.pathwise,)),
    )
    for loss in losses
}


@pytest.mark.parametrize("case", HAND)
def test_code_by_hand_is_distributed_as_ppgrad(case: str) -> None:
    kind, estimator, loss, rest = HAND[case]
    policy, state = kind.policy(), kind.start(EPISODES)
    objective = ppgrad.ExpectedReturn(ESTIMATORS[estimator]())
    ours = of_ppgrad(objective, kind.program, args=(policy, state, STEPS))
    theirs = gradients(lambda: loss(kind, policy, state, STEPS, *rest).backward(), dict(policy.named_parameters()))
    check_alike(ours, theirs, stats.ks_2samp)


def test_a_forgotten_baseline_is_found() -> None:
    policy, state = GAUSSIAN.policy(), GAUSSIAN.start(EPISODES)
    objective = ppgrad.ExpectedReturn(ESTIMATORS["score+loo"]())
    ours = of_ppgrad(objective, GAUSSIAN.program, args=(policy, state, STEPS))
    named = dict(policy.named_parameters())
    theirs = gradients(lambda: by_hand.score_function(GAUSSIAN, policy, state, STEPS, False).backward(), named)
    with pytest.raises(AssertionError):
        check_alike(ours, theirs, stats.ks_2samp)


@pytest.mark.parametrize("name", ELBOS)
@pytest.mark.parametrize(
    ("kind", "estimator"), [(SCALAR, "score"), (CATEGORICAL, "score"), (GAUSSIAN, "score"), (GAUSSIAN, "pathwise")]
)
def test_pyro_has_the_same_mean(name: str, kind: Kind, estimator: str) -> None:
    policy, state = kind.policy(), kind.start(EPISODES)
    objective = ppgrad.ExpectedReturn(ESTIMATORS[estimator]())
    ours = of_ppgrad(objective, kind.program, args=(policy, state, STEPS))
    rollout = PyroRollout(kind, score_function=estimator != "pathwise")
    loss = ELBOS[name]()
    theirs = gradients(
        lambda: loss.loss_and_grads(rollout.model, rollout.guide, policy, state, STEPS),
        dict(policy.named_parameters()),
        runs=RUNS // 4,
    )
    check_alike(ours, theirs, welch)


@pytest.mark.parametrize(("particles", "leave_one_out"), [(1, False), (2, True)])
def test_the_autoencoder_by_hand_is_distributed_as_ppgrad(particles: int, leave_one_out: bool) -> None:
    discrete_vae = load("discrete_vae")
    torch.manual_seed(0)
    images = discrete_vae.digits()[:3, 300:340]
    vae = discrete_vae.Autoencoder(images)
    vae.encoder[2], vae.decoder[0] = nn.Linear(200, 5), nn.Linear(5, 200)
    vae.prior = nn.Parameter(torch.zeros(5))
    baseline = ppgrad.LeaveOneOut() if leave_one_out else None
    objective = ppgrad.ELBO(ppgrad.ScoreFunction(baseline), num_particles=particles)

    def model(vae: nn.Module, images: Tensor) -> None:
        with pyro.plate("images", len(images)):
            prior = pyro.distributions.Bernoulli(logits=vae.prior).expand([len(images), 5])
            z = pyro.sample("z", prior.to_event(1))
            pixels = pyro.distributions.Bernoulli(logits=vae.decoder(z))
            pyro.sample("x", pixels.to_event(1), obs=images)

    ours = of_ppgrad(objective, model, discrete_vae.guide, args=(vae, images))
    theirs = gradients(
        lambda: by_hand.discrete_vae(vae, images, particles, leave_one_out).backward(), dict(vae.named_parameters())
    )
    check_alike(ours, theirs, stats.ks_2samp)


def test_logistic_regression_by_hand_is_distributed_as_ppgrad() -> None:
    logistic_regression = load("logistic_regression")
    args = logistic_regression.problem().args
    objective = ppgrad.ELBO(ppgrad.Pathwise())
    ours = of_ppgrad(objective, logistic_regression.model, logistic_regression.guide, args=args)
    named = {name: torch.zeros(args[0].shape[-1], requires_grad=True) for name in ("loc", "log_scale")}
    theirs = gradients(lambda: by_hand.logistic_regression(*args[:2], *named.values()).backward(), named)
    check_alike(ours, theirs, stats.ks_2samp)
