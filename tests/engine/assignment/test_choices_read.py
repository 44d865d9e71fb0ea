"""A choice that somebody wrote down is read, or is an error: globs, the model's sites, Pyro's keys."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import SVI, autoguide

import ppgrad
from ppgrad import ELBO, ExpectedReturn, InvalidAssignment, Pathwise, ScoreFunction, config_gradient

tensor = torch.tensor


def model():
    a = pyro.sample("a", dist.Normal(0.0, 1.0))
    b = pyro.sample("b", dist.Gamma(2.0, 1.0))
    pyro.sample("x", dist.Normal(a, b), obs=tensor(1.0))


def guide():
    pyro.sample("a", dist.Normal(pyro.param("m", tensor(0.0)), 1.0))
    pyro.sample("b", dist.LogNormal(pyro.param("s", tensor(0.0)), 1.0))


ENTRIES = {
    "alone": lambda m, g: g(),
    "trace": lambda m, g: poutine.trace(g).get_trace(),
    "gradient": lambda m, g: ppgrad.gradient(ELBO(), m, g, seed=0),
    "particles": lambda m, g: ppgrad.gradient(ELBO(num_particles=5), m, g, seed=0),
    "compiled": lambda m, g: ppgrad.gradient(ELBO(compile="eager"), m, g, seed=0),
    "measure": lambda m, g: ppgrad.measure(ELBO(), m, g, replicates=3),
    "loss": lambda m, g: ELBO().loss(m, g),
    "SVI": lambda m, g: SVI(m, g, pyro.optim.Adam({"lr": 0.1}), ELBO()).step(),
    "fit": lambda m, g: ppgrad.fit(ELBO(), m, g, steps=2, progress=False),
    "compare": lambda m, g: ppgrad.compare({"a": ELBO()}, m, g, replicates=3),
    "Pyro": lambda m, g: SVI(m, g, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()).step(),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("globs", [["c"], ["a", "x"], ["?", "b_*"]])
def test_a_glob_of_config_gradient_that_matches_nothing_is_an_error(entry, globs):
    configured = config_gradient(guide, sites=dict.fromkeys(globs, ScoreFunction()))
    with pytest.raises(InvalidAssignment, match=r"config_gradient.*a, b"):
        ENTRIES[entry](model, configured)


@pytest.mark.parametrize("entry", ENTRIES)
def test_globs_that_match_are_none(entry):
    ENTRIES[entry](model, config_gradient(guide, sites={"a": ScoreFunction(), "[b]": Pathwise()}))


def test_a_glob_that_an_earlier_run_has_matched_may_miss_in_a_later_one():
    def branches(with_b):
        pyro.sample("a", dist.Normal(0.0, 1.0))
        if with_b:
            pyro.sample("b", dist.Normal(0.0, 1.0))

    configured = config_gradient(branches, sites={"b": ScoreFunction()})
    configured(True)
    configured(False)
    with pytest.raises(InvalidAssignment, match="'b'"):
        config_gradient(branches, sites={"b": ScoreFunction()})(False)


def test_a_program_that_fails_says_so_itself():
    def fails():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        config_gradient(fails, sites={"b": ScoreFunction()})()


def served(objective, model, guide):
    return dict(objective.prepare(model, guide).executor.setup.assignment.served())


def marked(**choices):
    def program():
        a = pyro.sample("a", dist.Normal(0.0, 1.0), infer={"gradient": choices["a"]} if "a" in choices else {})
        b = pyro.sample("b", dist.Gamma(2.0, 1.0), infer={"gradient": choices["b"]} if "b" in choices else {})
        pyro.sample("x", dist.Normal(a, b), obs=tensor(1.0))

    return program


@pytest.mark.parametrize("auto", [autoguide.AutoNormal, autoguide.AutoGuideList, None])
def test_the_models_site_chooses_for_a_guide_that_says_nothing(auto):
    program = marked(a=ScoreFunction())
    if auto is autoguide.AutoGuideList:
        own = autoguide.AutoGuideList(program)
        own.append(autoguide.AutoNormal(poutine.block(program, expose=["a"])))
        own.append(autoguide.AutoNormal(poutine.block(program, expose=["b"])))
    else:
        own = guide if auto is None else auto(program)
    found = served(ELBO(), program, own)
    ending = "" if auto is None else "_unconstrained"
    assert found == {f"a{ending}": ScoreFunction(), f"b{ending}": Pathwise()}
    assert served(ELBO(), config_gradient(program, default=ScoreFunction()), own) == dict.fromkeys(
        found, ScoreFunction()
    )


def test_the_guides_site_and_the_objectives_sites_go_first():
    program = marked(a=ScoreFunction(), b=ScoreFunction())
    mine = config_gradient(guide, sites={"a": Pathwise()})
    assert served(ELBO(), program, mine) == {"a": Pathwise(), "b": ScoreFunction()}
    assert served(ELBO(sites={"b": Pathwise()}), program, mine) == {"a": Pathwise(), "b": Pathwise()}
    assert served(ELBO(Pathwise()), program, guide) == {"a": ScoreFunction(), "b": ScoreFunction()}


def test_a_model_that_sums_over_a_draw_of_the_guide_gives_what_the_guide_would():
    def coins(**infer):
        def program():
            z = pyro.sample("z", dist.Bernoulli(0.3), infer=infer)
            pyro.sample("x", dist.Normal(z, 1.0), obs=tensor(1.0))

        return program

    def of_coins(**infer):
        return lambda: pyro.sample("z", dist.Bernoulli(logits=pyro.param("l", tensor(0.4))), infer=infer)

    exact = {"gradient": ppgrad.Enumerate()}
    there = ppgrad.gradient(ELBO(), coins(**exact), of_coins(), seed=0)
    assert there == ppgrad.gradient(ELBO(), coins(), of_coins(**exact), seed=0)


def test_a_choice_for_a_site_that_is_drawn_with_others_is_an_error():
    program = marked(a=ScoreFunction())
    with pytest.raises(InvalidAssignment, match=r"'a'.*_AutoMultivariateNormal_latent"):
        ELBO().prepare(program, autoguide.AutoMultivariateNormal(program))
    ELBO().prepare(program, autoguide.AutoDelta(program))  # draws nothing


@pytest.mark.parametrize(
    ("infer", "message"),
    [
        ({"enumerate": "paralell"}, "'parallel' or 'sequential'"),
        ({"enumerate": True}, "'parallel' or 'sequential'"),
        ({"num_samples": 10}, "num_particles=10"),
        ({"enumerate": "parallel", "num_samples": 3}, "num_particles=3"),
    ],
)
@pytest.mark.parametrize("estimator", [None, ScoreFunction()])
def test_pyros_keys_are_read_or_refused(infer, message, estimator):
    def program():
        z = ppgrad.policy("z", dist.Bernoulli(logits=pyro.param("l", tensor(0.2))), infer=infer)
        ppgrad.cost("c", z)

    with pytest.raises(InvalidAssignment, match=f"'z'.*{message}"):
        ppgrad.gradient(ExpectedReturn(estimator), program, seed=0)


@pytest.mark.parametrize("word", ["parallel", "sequential", None])
def test_pyros_words_for_enumeration(word):
    def program():
        z = ppgrad.policy("z", dist.Bernoulli(logits=pyro.param("l", tensor(0.2))), infer={"enumerate": word})
        ppgrad.cost("c", z)

    assert "l" in ppgrad.gradient(ExpectedReturn(), program, seed=0)


@pytest.mark.parametrize(
    "off", [{"use_decaying_avg_baseline": False}, {"nn_baseline": None, "baseline_value": None}, {}], ids=repr
)
def test_a_baseline_that_is_switched_off_is_none(off):
    def program():
        logits = pyro.param("l", tensor(0.2))
        z = ppgrad.policy("z", dist.Bernoulli(logits=logits), infer={"baseline": off})
        ppgrad.cost("c", z)

    assert served(ExpectedReturn(), program, None) == {"z": ScoreFunction()}
