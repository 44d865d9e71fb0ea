"""What public functions are given is checked in one place, and what torch says of a mistake is explained."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, ExpectedReturn, InvalidInput, InvalidProgram, NonFinite, OutOfSupport, Pathwise, ScoreFunction


def program():
    mu = pyro.param("mu", torch.tensor(0.5))
    ppgrad.reward("r", ppgrad.policy("a", dist.Normal(mu, 1.0)))


OBJECTIVE = ExpectedReturn(ScoreFunction())

FUNCTIONS = {
    "gradient": lambda *a, **k: ppgrad.gradient(OBJECTIVE, *a, **k),
    "measure": lambda *a, **k: ppgrad.measure(OBJECTIVE, *a, replicates=4, **k),
    "compare": lambda *a, **k: ppgrad.compare({"score": OBJECTIVE}, *a, replicates=4, **k),
    "exact_gradient": lambda *a, **k: ppgrad.exact_gradient(OBJECTIVE, *a, **k),
    "hessian": lambda *a, **k: ppgrad.hessian(OBJECTIVE, *a, **k),
    "fit": lambda *a, **k: ppgrad.fit(OBJECTIVE, *a, steps=3, progress=False, **k),
    "rollouts": lambda model, guide=None, *a, **k: ppgrad.rollouts(model, *a, num=2, **k),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("wrong", [torch.zeros(2), 500, "ab", np.zeros(2)], ids=["tensor", "int", "str", "array"])
def test_args_and_kwargs_are_named(function, wrong):
    with pytest.raises(InvalidInput, match=r"args=.*write a tuple"):
        function(program, args=wrong)
    with pytest.raises(InvalidInput, match=r"kwargs=.*write a dict"):
        function(program, kwargs=wrong)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_models_and_guides_are_named(function):
    with pytest.raises(InvalidInput, match="is no program"):
        function(torch.zeros(2))
    if function is not FUNCTIONS["rollouts"]:
        with pytest.raises(InvalidInput, match="guide="):
            function(program, torch.zeros(2))


@pytest.mark.parametrize("name", ["gradient", "measure", "compare", "fit", "rollouts"])
def test_seeds(name):
    for wrong in (3.0, "3", True, -1, 2**32, torch.zeros(2)):
        with pytest.raises(InvalidInput, match="seed="):
            FUNCTIONS[name](program, seed=wrong)
    FUNCTIONS[name](program, seed=np.int64(3))


def test_a_seed_of_numpy_is_the_number():
    one, other = (ppgrad.gradient(OBJECTIVE, program, seed=seed) for seed in (3, np.int64(3)))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_objectives():
    with pytest.raises(InvalidInput, match="objective"):
        ppgrad.compare({"a": 3}, program)
    with pytest.raises(InvalidInput, match="objective=ELBO"):
        ppgrad.Problem(program, ELBO(), "an instance")


def test_a_distribution_of_torch_is_named():
    def of_torch():
        ppgrad.policy("a", torch.distributions.Normal(0.0, 1.0))

    with pytest.raises(InvalidProgram, match=r"'a'.*pyro\.distributions\.Normal"):
        ppgrad.gradient(OBJECTIVE, of_torch)


@pytest.mark.parametrize("estimator", [Pathwise(), ScoreFunction()])
def test_sparse_gradients(estimator):
    net = torch.nn.Embedding(3, 1, sparse=True)

    def sparse(net):
        ppgrad.reward("r", ppgrad.policy("a", dist.Normal(net(torch.tensor(1)).squeeze(), 1.0)))

    objective = ExpectedReturn(estimator)
    truth = {"net.weight": torch.tensor([[0.0], [1.0], [0.0]])}
    torch.testing.assert_close(ppgrad.exact_gradient(objective, sparse, args=(net,)), truth, rtol=1e-4, atol=1e-4)
    assert (
        ppgrad.measure(objective, sparse, args=(net,), replicates=400, reference=truth).p_value["net.weight"].min()
        > 1e-5
    )
    before = net.weight.detach().clone()
    ppgrad.fit(objective, sparse, args=(net,), steps=2, progress=False, max_grad_norm=1.0)
    assert (net.weight != before).any()


@pytest.mark.parametrize("policy", [ppgrad.GaussianPolicy(3, 1), ppgrad.BetaPolicy(3, 1)])
def test_the_score_of_a_draw_by_rsample(policy):
    states = torch.randn(5, 3)
    action = policy(states).rsample()
    torch.testing.assert_close(
        ppgrad.score(policy, states, action), ppgrad.score(policy, states, action.detach()), rtol=1e-4, atol=1e-5
    )


class Recurrent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRUCell(1, 2)
        self.state = torch.zeros(1, 2)

    def forward(self, x):
        self.state = self.cell(x, self.state)
        return dist.Normal(self.state[0, 0], 1.0)


@pytest.mark.parametrize("name", ["gradient", "measure", "fit"])
def test_a_state_that_is_kept_with_its_graph(name):
    def recurrent(policy):
        ppgrad.reward("r", ppgrad.policy("a", policy(torch.ones(1, 1))))

    net = Recurrent()
    if name == "gradient":
        ppgrad.gradient(OBJECTIVE, recurrent, args=(net,))
    with pytest.raises(InvalidProgram, match="detach"):
        FUNCTIONS[name](recurrent, args=(net,))


def _guide():
    pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.0)), 1.0))


def _observes(fn, value):
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", fn(z), obs=value)

    return model


@pytest.mark.parametrize(
    ("fn", "value", "error", "words"),
    [
        (
            lambda z: dist.Normal(z * torch.ones(3), 1.0).to_event(1),
            torch.zeros(4),
            InvalidProgram,
            r"'x'.*\(4,\).*\(3,\)",
        ),
        (lambda z: dist.Categorical(logits=z * torch.ones(3)), torch.tensor(7), OutOfSupport, r"'x'.*support.*\n7"),
        (lambda z: dist.Bernoulli(logits=z), torch.tensor(2.0), OutOfSupport, r"'x'.*support.*\n2\.0"),
        (lambda z: dist.Gamma(z.exp(), 1.0), torch.tensor(-1.0), OutOfSupport, r"'x'.*support.*\n-1\.0"),
        (lambda z: dist.Beta(z.exp(), 1.0), torch.tensor(1.5), OutOfSupport, r"'x'.*support.*\n1\.5"),
        (lambda z: dist.Normal(z, z * 0 - 1), torch.tensor(1.0), NonFinite, "'x'.*'scale'.*-1"),
    ],
)
def test_observations(fn, value, error, words):
    with pytest.raises(error, match=words):
        ppgrad.gradient(ELBO(), _observes(fn, value), _guide)
