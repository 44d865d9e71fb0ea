"""Models with sites to be summed out: the shapes in which enumeration is used."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.ops.indexing import Vindex
from torch import Tensor

import ppgrad
from ppgrad.testing.problems import parameters

PARALLEL = {"enumerate": "parallel"}
DATA = torch.tensor([-1.2, 0.3, 0.8, 2.0])
TABLE = torch.linspace(-1.5, 2.0, 12).reshape(3, 4)

MODELS: dict[str, Callable[[], None]] = {}


def model(fn: Callable[[], None]) -> Callable[[], None]:
    MODELS[fn.__name__] = fn
    return fn


def weights() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of three values, a 3 × 3 table of logits, three places."""
    table = torch.arange(9.0).reshape(3, 3) % 4 / 5
    found = parameters({"first": [0.1, -0.3, 0.2], "table": table, "loc": [-1.0, 0.2, 1.5]})
    return found["first"], found["table"], found["loc"]


def categorical(name: str, logits: Tensor, **infer: object) -> Tensor:
    z: Tensor = pyro.sample(name, dist.Categorical(logits=logits), infer={**PARALLEL, **infer})
    return z


@model
def mixture() -> None:
    first, _, loc = weights()
    with pyro.plate("n", 4):
        pyro.sample("x", dist.Normal(loc[categorical("z", first)], 1.0), obs=DATA)


@model
def one_cluster_for_all_data() -> None:
    first, _, loc = weights()
    z = categorical("z", first)
    with pyro.plate("n", 4):
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=DATA)


@model
def nested_plates() -> None:
    first, table, loc = weights()
    with pyro.plate("n", 4, dim=-1):
        z = categorical("z", first)
        with pyro.plate("m", 3, dim=-2):
            k = categorical("k", table[z])
            pyro.sample("x", dist.Normal(loc[k] + 0.1 * z, 1.0), obs=TABLE)


@model
def observed_in_crossed_plates() -> None:
    first, _, loc = weights()
    z = categorical("z", first)
    n, m = pyro.plate("n", 4, dim=-1), pyro.plate("m", 3, dim=-2)
    with n:
        pyro.sample("x", dist.Normal(loc[z], 1.0), obs=DATA)
    with m:
        pyro.sample("y", dist.Normal(-loc[z], 1.0), obs=TABLE[:, :1])
    with n, m:
        pyro.sample("xy", dist.Normal(loc[z], 1.0), obs=TABLE)


@model
def a_chain_in_a_plate() -> None:
    _, table, loc = weights()
    with pyro.plate("n", 4):
        z = torch.tensor(0)
        for t in pyro.markov(range(3)):
            z = categorical(f"z_{t}", table[z])
            pyro.sample(f"x_{t}", dist.Normal(loc[z], 1.0), obs=TABLE[t])


@model
def a_chain_of_second_order() -> None:
    _, table, loc = weights()
    steps = torch.stack([table, table.T, 0.5 * table])
    z = before = torch.tensor(0)
    for t in pyro.markov(range(4), history=2):
        z, before = categorical(f"z_{t}", Vindex(steps)[before, z]), z
        pyro.sample(f"x_{t}", dist.Normal(loc[z], 1.0), obs=TABLE[0, t])


@model
def a_tree() -> None:
    first, table, loc = weights()
    root = categorical("root", first)
    for i in range(2):
        branch = categorical(f"branch_{i}", table[root])
        for j in range(2):
            leaf = categorical(f"leaf_{i}{j}", table[branch])
            pyro.sample(f"x_{i}{j}", dist.Normal(loc[leaf], 1.0), obs=TABLE[i, j])


@model
def a_sequential_plate() -> None:
    first, _, loc = weights()
    for i in pyro.plate("n", 4):
        pyro.sample(f"x_{i}", dist.Normal(loc[categorical(f"z_{i}", first)], 1.0), obs=DATA[i])


@model
def masked_data() -> None:
    first, _, loc = weights()
    with pyro.plate("n", 4), poutine.mask(mask=DATA > 0):
        pyro.sample("x", dist.Normal(loc[categorical("z", first)], 1.0), obs=DATA)


@model
def scaled_and_subsampled() -> None:
    first, _, loc = weights()
    with pyro.plate("n", 40, subsample=torch.arange(4)), poutine.scale(scale=torch.tensor(0.5)):
        pyro.sample("x", dist.Normal(loc[categorical("z", first)], 1.0), obs=DATA)


@model
def expanded_and_one_hot() -> None:
    first, _, loc = weights()
    with pyro.plate("n", 4):
        z = categorical("z", first, expand=True)
        one_hot = pyro.sample("h", dist.OneHotCategorical(logits=loc * (1 + z).unsqueeze(-1)), infer=PARALLEL)
        pyro.sample("x", dist.Normal((one_hot * loc).sum(-1), 1.0), obs=DATA)


@model
def factors_and_rewards() -> None:
    first, _, loc = weights()
    z = categorical("z", first)
    pyro.factor("f", 0.3 * loc[z])
    with pyro.plate("n", 4):
        ppgrad.reward("r", -((loc[z] - DATA) ** 2))


@model
def impossible_values() -> None:
    first, _, loc = weights()
    z = categorical("z", torch.cat([first[:2], torch.tensor([-float("inf")])]))
    y = pyro.sample("y", dist.Categorical(probs=torch.eye(3)[z]), infer=PARALLEL)
    pyro.sample("x", dist.Normal(loc[y], 1.0), obs=DATA[0])


def no_guide() -> None:
    """Nothing is drawn."""
