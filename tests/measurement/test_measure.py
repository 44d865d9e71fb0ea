"""`measure`, `compare` and `exact_gradient`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import ppgrad
from ppgrad import ELBO, CannotBeExact, ExpectedReturn, LeaveOneOut, MovingAverage, Pathwise, ScoreFunction
from ppgrad.core import NonFinite
from ppgrad.measurement.measure import ready
from ppgrad.measurement.replicates import default_chunk_size
from ppgrad.testing import all_problems
from ppgrad.testing.problems import parameters

PROBLEMS = all_problems()


def vector() -> None:
    p = parameters({"m": [0.5, -0.2], "s": 0.7})
    x = ppgrad.policy("x", dist.Normal(p["m"], p["s"]).to_event(1))
    ppgrad.cost("f", (x**2).sum())


def test_fields_and_shapes() -> None:
    result = ppgrad.measure(ExpectedReturn(Pathwise(), num_particles=3), vector, replicates=101)
    assert result.draws["m"].shape == (101, 2)
    assert result.draws["s"].shape == (101,)
    for column in (result.mean, result.mcse, result.variance, result.variance_mcse, result.snr, result.bias):
        assert column["m"].shape == (2,)
        assert column["s"].shape == ()
    torch.testing.assert_close(result.mean["m"], result.draws["m"].double().mean(0), check_dtype=False)
    torch.testing.assert_close(result.variance["m"], result.draws["m"].double().var(0), check_dtype=False)
    torch.testing.assert_close(result.work_variance["s"], result.variance["s"] * result.seconds)
    assert result.evaluations == 3
    assert result.seconds > 0
    assert result.reference_kind == "exact"
    torch.testing.assert_close(result.reference["m"], torch.tensor([-1.0, 0.4]), rtol=1e-4, atol=1e-5)
    assert set(result.khat) == set(result.tail) == {"m", "s"}


def test_a_given_reference_and_none() -> None:
    problem = PROBLEMS["gamma"]
    none = ppgrad.measure(ExpectedReturn(), problem.model, replicates=50)
    assert none.reference_kind == "none"
    assert torch.isnan(none.bias["a"])
    given = ppgrad.measure(ExpectedReturn(), problem.model, replicates=50, reference=problem.exact())
    assert given.reference_kind == "given"
    wrong = {name: value + 1 for name, value in problem.exact().items()}
    found = ppgrad.measure(ExpectedReturn(), problem.model, replicates=2000, reference=wrong)
    assert found.p_value["a"] < 1e-9


def test_measuring_is_pure() -> None:
    objective = ExpectedReturn(ScoreFunction(MovingAverage()))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = ppgrad.measure(objective, vector, replicates=20, seed=4)
    second = ppgrad.measure(objective, vector, replicates=20, seed=4)
    other = ppgrad.measure(objective, vector, replicates=20, seed=5)
    assert torch.equal(first.draws["m"], second.draws["m"])
    assert not torch.equal(first.draws["m"], other.draws["m"])
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert not list(pyro.get_param_store())
    assert not objective.memory


def test_heavy_tails_are_flagged() -> None:
    """The importance-weighted score of q = N(0, s²) against N(0, 1) has k = 1 − s²."""

    def program() -> None:
        s = parameters({"s": 0.4})["s"]
        x = ppgrad.policy("x", dist.Normal(0.0, s))
        ppgrad.reward("r", (-0.5 * x**2 + 0.5 * (x / s.detach()) ** 2).exp())

    reference = {"s": torch.tensor(0.0)}
    result = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, replicates=20_000, reference=reference)
    assert result.khat["s"] > 0.5
    assert result.tail["s"] in ("infinite variance", "no mean")


def test_one_estimator_twice_has_one_set_of_draws() -> None:
    comparison = ppgrad.compare({"a": ExpectedReturn(), "b": ExpectedReturn(Pathwise())}, vector, replicates=64)
    draws = [comparison.estimators[label].draws["m"] for label in ("a", "b")]
    assert np.array_equal(*draws)
    assert comparison.pairs().loc[("a", "b"), "ratio"] == 1


def test_score_function_and_pathwise_share_their_noise() -> None:
    """Under common seeds both see the same ε: 2ε(d + σε)… for pathwise, f ε / σ for the score."""
    mu, sigma = 0.7, 0.8

    def program() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": mu})["mu"], sigma))
        ppgrad.cost("f", x**2)

    objectives = {"score": ExpectedReturn(ScoreFunction()), "pathwise": ExpectedReturn(Pathwise())}
    comparison = ppgrad.compare(objectives, program, replicates=50)
    pathwise, score = (comparison.estimators[label].draws["mu"] for label in ("pathwise", "score"))
    x = -pathwise / 2
    np.testing.assert_allclose(score, -(x**2) * (x - mu) / sigma**2, rtol=1e-4, atol=1e-4)


def test_kinds_of_reference() -> None:
    gamma = PROBLEMS["gamma"]
    long = ppgrad.compare({"pathwise": ExpectedReturn(Pathwise())}, gamma.model, replicates=400)
    assert long.reference_kind.startswith("long run")
    for name, exact in gamma.exact().items():
        assert abs(long.reference[name] - exact.item()) < 6 * long.reference_mcse[name]
    exact = ppgrad.compare({"pathwise": ExpectedReturn(Pathwise())}, vector, replicates=20)
    assert exact.reference_kind == "exact"
    given = ppgrad.compare({"p": ExpectedReturn()}, gamma.model, replicates=20, reference=gamma.exact())
    assert given.reference_kind == "given"


def refused(model, guide=None, objective=None) -> str:
    with pytest.raises(CannotBeExact) as raised:
        ppgrad.exact_gradient(objective or ExpectedReturn(), model, guide)
    return str(raised.value)


def test_what_cannot_be_exact() -> None:
    assert "'x'" in refused(PROBLEMS["gamma"].model)
    subsampled = PROBLEMS["subsampled_elbo"]
    assert "'n'" in refused(subsampled.model, subsampled.guide, ELBO())

    def jump() -> None:
        x = ppgrad.policy("x", dist.Normal(parameters({"mu": 0.3})["mu"], 1.0))
        ppgrad.reward("r", (x > 0.1).float())

    assert "jumps" in refused(jump)

    def noisy() -> None:
        x = ppgrad.policy("x", dist.Bernoulli(logits=parameters({"l": 0.3})["l"]))
        ppgrad.reward("r", x * np.random.normal())

    assert "outside of its sites" in refused(noisy)

    def large() -> None:
        p = parameters({"l": 0.3})["l"]
        ppgrad.reward("r", sum(ppgrad.policy(f"x_{t}", dist.Bernoulli(logits=p)) for t in range(30)) ** 2)

    assert "too large" in refused(large)
    importance = PROBLEMS["importance_discrete"]
    assert "IWELBO" in refused(importance.model, importance.guide, ppgrad.IWELBO())


def test_leave_one_out_needs_no_more_than_it_says() -> None:
    objective = ExpectedReturn(ScoreFunction(LeaveOneOut()), num_particles=2)
    assert ppgrad.measure(objective, vector, replicates=10).evaluations == 2


def wide(hidden: int) -> Callable[[], None]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 1))

    def program() -> None:
        with pyro.plate("episodes", 8):
            x = ppgrad.policy("x", dist.Normal(net(torch.ones(8, 1)).squeeze(-1), 1.0))
            ppgrad.reward("r", -(x**2))

    return program


@pytest.mark.parametrize("hidden", [4, 256])
def test_the_graphs_of_a_chunk_keep_within_the_budget(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 2**20
    monkeypatch.setattr("ppgrad.measurement.replicates._BUDGET", budget)
    program, objective = wide(hidden), ppgrad.ExpectedReturn(ppgrad.ScoreFunction())
    chunk_size = default_chunk_size(ready(objective, program, None, (), None))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        ppgrad.measure(objective, program, replicates=2 * chunk_size)
    assert budget / 4 < sum(kept.values()) < 3 * budget, "of two chunks"


@pytest.mark.parametrize("seed", [None, 3])
def test_a_gradient_that_is_not_finite_is_explained(seed: int | None) -> None:
    def program() -> None:
        scale = pyro.param("scale", torch.tensor(0.0))
        x = ppgrad.policy("x", dist.Normal(pyro.param("loc", torch.tensor(0.3)), 1.0))
        ppgrad.reward("r", x * scale.sqrt())

    with pytest.raises(NonFinite, match=r"At site 'r' the gradient of the cost .* parameter 'scale' is"):
        ppgrad.gradient(ppgrad.ExpectedReturn(ppgrad.Pathwise()), program, seed=seed)
