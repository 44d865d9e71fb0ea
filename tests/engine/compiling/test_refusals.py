"""Programs that a graph would get wrong are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import ppgrad
from ppgrad import (
    ExpectedReturn,
    InvalidInput,
    Pathwise,
    ScoreFunction,
)
from ppgrad.engine.compiling import compiled
from tests.engine.compiling.programs import TRACED, program


def branching() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", z**2 if z > 0 else -z)


def from_numpy() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", torch.as_tensor(np.square(z.detach().numpy())))


def random_numpy() -> None:
    z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
    ppgrad.cost("f", z * float(np.random.randn()))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self) -> None:
        with pyro.plate("batch", 4):
            z = ppgrad.policy("z", dist.Normal(pyro.param("loc", torch.tensor(0.5)), 1.0))
            ppgrad.cost("f", self.norm(z.unsqueeze(-1)).squeeze(-1))


@pytest.mark.filterwarnings("ignore:Plate 'batch':ppgrad.CoupledSlices")
@pytest.mark.parametrize(
    ("model", "says"),
    [
        (branching, "after site 'z' depends on a value"),
        (from_numpy, "after site 'z' depends on a value, or leaves torch"),
        (random_numpy, "draws from NumPy's generator"),
        (Counting(), "changes a tensor that it holds in place"),
    ],
    ids=["branching", "numpy", "numpy generator", "batch norm"],
)
def test_programs_that_a_graph_would_get_wrong_are_refused(model: Callable[[], None], says: str) -> None:
    with pytest.raises(ppgrad.Unsupported, match=says) as raised:
        ppgrad.gradient(ExpectedReturn(ScoreFunction(), compile=TRACED), model, seed=0)
    assert "compile=False" in str(raised.value)


def test_a_numpy_argument_is_refused() -> None:
    def scaled(x: Any) -> None:
        program(torch.as_tensor(x))

    with pytest.raises(ppgrad.InvalidInput, match="NumPy"):
        ppgrad.gradient(ExpectedReturn(Pathwise(), compile=TRACED), scaled, args=(np.ones(()),), seed=0)


def test_a_number_that_is_not_finite_names_its_site() -> None:
    def unlucky(x: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        ppgrad.cost("f", ppgrad.policy("z", dist.Normal(loc, 1.0)) * torch.log(x))

    objective = ExpectedReturn(Pathwise(), compile=TRACED)
    ppgrad.gradient(objective, unlucky, args=(torch.tensor(1.0),), seed=0)
    with pytest.raises(ppgrad.NonFinite, match="'f'"):
        ppgrad.gradient(objective, unlucky, args=(torch.tensor(-1.0),), seed=0)


def test_without_a_compiler_it_runs_as_it_is_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    monkeypatch.setattr(compiled, "_without_compiler", set())
    objective = ExpectedReturn(ScoreFunction(), compile=True)
    with pytest.warns(ppgrad.NoCompiler, match="No C\\+\\+ compiler"):
        one = ppgrad.gradient(objective, program, seed=0)
    assert torch.equal(one["loc"], ppgrad.gradient(objective, program, seed=0)["loc"])
    assert torch.equal(one["loc"], ppgrad.gradient(ExpectedReturn(ScoreFunction()), program, seed=0)["loc"])


@pytest.mark.parametrize("wrong", ["nonsense", 1, None], ids=repr)
def test_what_is_no_backend_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidInput, match="list_backends"):
        ExpectedReturn(compile=wrong)
