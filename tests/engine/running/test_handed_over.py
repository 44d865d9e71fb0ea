"""A site keeps what it was given, whatever the program writes into the tensor afterwards."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ELBO, Critic, Enumerate, ExpectedReturn, LocalExpectation, Pathwise, ScoreFunction

MARKED = {"differentiable": False}


def _clamp(a):
    return a.clamp_(-1, 1)


def _item(a):
    a[...] = torch.minimum(torch.maximum(a, torch.tensor(-1.0)), torch.tensor(1.0))
    return a


def _detached(a):
    a.detach().clamp_(-1, 1)
    return a


def _data(a):
    a.data.clamp_(-1, 1)
    return a


def _numpy(a):
    array = a.detach().numpy()
    array[...] = np.clip(array, -1, 1)
    return a


def _view(a):
    a.view(1).clamp_(-1, 1)
    return a


@pytest.mark.parametrize("write", [_clamp, _item, _detached, _data, _numpy, _view])
def test_a_draw_keeps_its_density(write):
    def program():
        mu = pyro.param("mu", torch.tensor(0.8))
        a = ppgrad.policy("a", dist.Normal(mu, 1.0), infer=MARKED)
        ppgrad.reward("r", write(a))

    truth = {"mu": torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(0.2))}
    truth["mu"] = truth["mu"] - torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-1.8))
    measured = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, replicates=1500, reference=truth)
    assert measured.p_value["mu"].item() > 1e-5


def test_pathwise_and_the_score_agree_on_a_draw_that_is_written_to():
    def program():
        mu = pyro.param("mu", torch.tensor(0.8))
        a = ppgrad.policy("a", dist.Normal(mu, 1.0))
        ppgrad.reward("r", -((a.mul_(2.0) - 1) ** 2))

    truth = {"mu": torch.tensor(-4 * (1.6 - 1))}
    torch.testing.assert_close(ppgrad.exact_gradient(ExpectedReturn(), program), truth, rtol=1e-3, atol=0)
    for estimator in (Pathwise(), ScoreFunction()):
        measured = ppgrad.measure(ExpectedReturn(estimator), program, replicates=2000, reference=truth)
        assert measured.p_value["mu"].item() > 1e-5


@pytest.mark.parametrize("estimator", [Enumerate(), LocalExpectation(), ScoreFunction(), ppgrad.DisARM()])
@pytest.mark.parametrize("particles", [1, 3])
def test_bits_that_are_set(estimator, particles):
    def program():
        logits = pyro.param("logits", torch.tensor([0.3, -0.2, 0.5]))
        z = ppgrad.policy("z", dist.Bernoulli(logits=logits).to_event(1))
        z[0] = 1.0
        ppgrad.reward("r", (z * torch.tensor([1.0, 2.0, 3.0])).sum())

    p = torch.tensor([0.3, -0.2, 0.5]).sigmoid()
    truth = torch.tensor([0.0, 2.0, 3.0]) * p * (1 - p)
    torch.testing.assert_close(ppgrad.exact_gradient(ExpectedReturn(), program)["logits"], truth)
    objective = ExpectedReturn(estimator, num_particles=particles)
    measured = ppgrad.measure(objective, program, replicates=800, reference={"logits": truth})
    assert measured.p_value["logits"].min().item() > 1e-5


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("give", [lambda x: x, lambda x: torch.as_tensor(x)])
def test_a_reward_in_a_buffer_that_is_written_again(numpy, give):
    def program():
        mu = pyro.param("mu", torch.tensor(0.5))
        buffer = np.zeros((), dtype=np.float32) if numpy else torch.zeros(())
        for t in range(3):
            a = ppgrad.policy(f"a_{t}", dist.Normal(mu, 1.0), infer=MARKED)
            buffer[...] = a.item() * (10 if t == 0 else 1)
            ppgrad.reward(f"r_{t}", give(buffer))

    truth = {"mu": torch.tensor(12.0)}
    measured = ppgrad.measure(ExpectedReturn(ScoreFunction()), program, replicates=1500, reference=truth)
    assert measured.p_value["mu"].item() > 1e-5


class _Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, context):
        return self.weight * (context["state"] if isinstance(context, dict) else context).sum(-1)


@pytest.mark.parametrize("numpy", [False, True])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state": x}])
def test_a_context_that_is_written_again(numpy, wrap):
    def program():
        mu = pyro.param("mu", torch.tensor(0.5))
        state = np.zeros(1, dtype=np.float32) if numpy else torch.zeros(1)
        for t in range(2):
            context = wrap(torch.from_numpy(state) if numpy else state)
            a = ppgrad.policy(f"a_{t}", dist.Normal(mu, 1.0), context=context, infer=MARKED)
            state[0] = a.item()
            ppgrad.reward(f"r_{t}", a.detach())

    objective = ExpectedReturn(ScoreFunction(Critic(_Sum())))
    measured = ppgrad.measure(objective, program, replicates=800, reference={"mu": torch.tensor(2.0)})
    assert measured.p_value["mu"].item() > 1e-5


def test_a_distribution_s_parameter_that_is_written_again():
    def program():
        mu = pyro.param("mu", torch.tensor(0.5))
        state = torch.zeros(())
        z = ppgrad.policy("z", dist.Normal(mu, 1.0), infer=MARKED)
        pyro.sample("x", dist.Normal(state, 1.0), obs=torch.tensor(3.0))
        state.fill_(3.0)
        ppgrad.reward("r", z)

    loss = -ExpectedReturn(ScoreFunction()).loss(program, None)
    trace = pyro.poutine.trace(program).get_trace()
    assert trace.nodes["x"]["fn"].loc == 3.0  # what Pyro's own trace would look at
    assert np.isfinite(loss)

    def model():
        state = torch.zeros(())
        pyro.sample("x", dist.Normal(state, 1.0), obs=torch.tensor(3.0))
        state.fill_(3.0)

    bound = ELBO().loss(model, lambda: None)
    assert bound == pytest.approx(-float(dist.Normal(0.0, 1.0).log_prob(torch.tensor(3.0))), rel=1e-5)


def test_an_observation_that_is_written_again():
    def model():
        x = torch.zeros(())
        pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)
        x.fill_(3.0)

    bound = ELBO().loss(model, lambda: None)
    assert bound == pytest.approx(-float(dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0))), rel=1e-5)


def test_a_guide_that_writes_into_its_draw():
    def model():
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=torch.tensor(1.0))

    def guide(writes):
        mu = pyro.param("mu", torch.tensor(0.3))
        z = pyro.sample("z", dist.Normal(mu, 1.0))
        if writes:
            z.zero_()

    one = ppgrad.gradient(ELBO(), model, lambda: guide(True), seed=0)
    other = ppgrad.gradient(ELBO(), model, lambda: guide(False), seed=0)
    torch.testing.assert_close(one, other)


def test_a_write_that_the_first_run_did_not_show():
    steps = iter([False, False, True] * 20)

    def program(log):
        mu = pyro.param("mu", torch.tensor(0.8))
        a = ppgrad.policy("a", dist.Normal(mu, 1.0), infer=MARKED)
        log.append(a.item())
        if next(steps, True):
            a.fill_(100.0)
        ppgrad.reward("r", a.detach())

    objective = ExpectedReturn(ScoreFunction())
    for seed in range(4):
        log = []
        gradient = ppgrad.gradient(objective, program, args=(log,), seed=seed)["mu"].item()
        drawn = log[-1] - 0.8
        assert gradient == pytest.approx(drawn * log[-1], rel=1e-4) or gradient == pytest.approx(100 * drawn, rel=1e-4)
