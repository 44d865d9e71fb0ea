"""VarGrad: the gradient of a variance is leave-one-out."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, InvalidInput, LeaveOneOut, Pathwise, ScoreFunction, Unsupported, VarGrad
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

PROBLEMS = all_problems()


def model() -> None:
    w = parameters({"w": 0.6})["w"]
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3]).to_event(1))
    pyro.sample("x", dist.Normal(w * z.sum(), 1.0), obs=torch.tensor(1.4))


def guide() -> None:
    p = parameters({"m": [0.1, 0.4, -0.2], "s": 0.8})
    pyro.sample("z", dist.Normal(p["m"], p["s"]).to_event(1))


@pytest.mark.parametrize("particles", [2, 5])
def test_it_equals_leave_one_out_at_one_site(particles: int) -> None:
    baseline = ELBO(ScoreFunction(LeaveOneOut()), num_particles=particles)
    for seed in range(5):
        ours = ppgrad.gradient(VarGrad(num_particles=particles), model, guide, seed=seed)
        theirs = ppgrad.gradient(baseline, model, guide, seed=seed)
        assert set(ours) == {"m", "s", "w"}
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_its_formula() -> None:
    """½ Var_k (log q / p) of samples held fixed, differentiated by hand."""
    m, s = torch.tensor([0.1, 0.4, -0.2], requires_grad=True), torch.tensor(0.8, requires_grad=True)
    objective, values = VarGrad(num_particles=4), []

    def kept() -> None:
        guide()

    pyro.set_rng_seed(3)
    prepared = objective.prepare(model, kept)
    for record in prepared.executor.execute():
        values += [entry.draw.value for entry in record.entries if entry.draw is not None]
    z = values[0].reshape(4, 3)
    log_q = dist.Normal(m, s).log_prob(z).sum(-1)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(-1) + dist.Normal(0.6 * z.sum(-1), 1.0).log_prob(torch.tensor(1.4))
    expected = torch.autograd.grad(-((log_q - log_p).var() / 2), [m, s])
    pyro.set_rng_seed(3)
    prepared = objective.prepare(model, kept)
    found = ppgrad.gradient(objective, model, kept)
    torch.testing.assert_close(found["m"], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["s"], expected[1], rtol=1e-4, atol=1e-5)


def test_its_loss_is_the_elbos() -> None:
    for seed in range(3):
        losses = []
        for objective in (VarGrad(num_particles=4), ELBO(ScoreFunction(), num_particles=4)):
            objective.prepare(model, guide)
            pyro.set_rng_seed(seed)
            losses.append(objective.loss(model, guide))
        assert losses[0] == losses[1]


def test_subsampling_is_leave_one_out_too() -> None:
    """Scales weigh the costs and not the scores; the plate's elements are charged with everything."""
    problem = PROBLEMS["subsampled_elbo"]
    found = ppgrad.measure(
        VarGrad(num_particles=3), problem.model, problem.guide, replicates=20_000, reference=problem.exact()
    )
    assert all(bool((p > 1e-8).all()) for p in found.p_value.values())


def test_bad_input() -> None:
    with pytest.raises(InvalidInput, match="a variance needs two particles"):
        VarGrad(num_particles=1)
    for estimator in (Pathwise(), ScoreFunction(LeaveOneOut())):
        with pytest.raises(Unsupported, match="cannot serve site 'z'"):
            ppgrad.gradient(VarGrad(estimator), model, guide)
