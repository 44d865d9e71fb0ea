"""Twelve programs of different shape: who depends on whom differs, all else is alike.

Each function makes a model and a guide of a size, with an evidence lower bound whose discrete sites take the score
function. Every program is written once, for Pyro and for ppgrad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

Programs = tuple[Callable[[], None], Callable[[], None]]
"""A model and its guide."""

TOPICS = torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.5, 1.0]])
"""Log probabilities of three words in two topics, up to a constant."""


def chain(size: int) -> Programs:
    """Each state is drawn from the one before it, and observed."""
    data = _data(size)

    def model() -> None:
        state = torch.zeros(())
        for t in pyro.markov(range(size)):
            state = pyro.sample(f"z_{t}", dist.Bernoulli(logits=1.2 * (2 * state - 1)))
            pyro.sample(f"x_{t}", dist.Normal(2 * state, 1.0), obs=data[t])

    def guide() -> None:
        logits, weight, state = _logits(size), pyro.param("weight", torch.tensor(0.8)), torch.zeros(())
        for t in pyro.markov(range(size)):
            state = pyro.sample(f"z_{t}", dist.Bernoulli(logits=logits[t] + weight * state))

    return model, guide


def fork(size: int) -> Programs:
    """A root, and what is drawn from it, each with an observation of its own."""
    data = _data(size)

    def model() -> None:
        root = pyro.sample("root", dist.Bernoulli(0.4))
        for i in range(size):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(logits=root - 0.5))
            pyro.sample(f"x_{i}", dist.Normal(2 * z, 1.0), obs=data[i])

    def guide() -> None:
        logits = _logits(size)
        root = pyro.sample("root", dist.Bernoulli(logits=pyro.param("root_logit", torch.tensor(0.2))))
        for i in range(size):
            pyro.sample(f"z_{i}", dist.Bernoulli(logits=logits[i] + root))

    return model, guide


def collider(size: int) -> Programs:
    """Independent causes, each seen by itself, of one effect."""
    data = _data(size)

    def model() -> None:
        causes = []
        for i in range(size):
            causes.append(pyro.sample(f"z_{i}", dist.Bernoulli(0.4)))
            pyro.sample(f"x_{i}", dist.Normal(2 * causes[-1], 1.0), obs=data[i])
        pyro.sample("effect", dist.Normal(torch.stack(causes).sum(), 2.0), obs=torch.tensor(1.0))

    def guide() -> None:
        logits = _logits(size)
        for i in range(size):
            pyro.sample(f"z_{i}", dist.Bernoulli(logits=logits[i]))

    return model, guide


def global_and_local(size: int) -> Programs:
    """Global Gaussians in a plate of their own, and local Bernoullis that share data with their mean."""
    data = _data(size)

    def model() -> None:
        with pyro.plate("globals", 5 * size):
            g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(2 * z + g.mean(), 1.0), obs=data)

    def guide() -> None:
        means = pyro.param("means", torch.full((5 * size,), 0.1))
        with pyro.plate("globals", 5 * size):
            pyro.sample("g", dist.Normal(means, 0.5))
        with pyro.plate("data", size):
            pyro.sample("z", dist.Bernoulli(logits=_logits(size)))

    return model, guide


def nested_plates(size: int) -> Programs:
    """A switch for each group, and one for each of its members."""
    data = _data(2 * size).reshape(2, size)

    def model() -> None:
        with pyro.plate("groups", size, dim=-1):
            a = pyro.sample("a", dist.Bernoulli(0.4))
            with pyro.plate("members", 2, dim=-2):
                z = pyro.sample("z", dist.Bernoulli(logits=2 * a - 1))
                pyro.sample("x", dist.Normal(2 * z, 1.0), obs=data)

    def guide() -> None:
        logits, weight = _logits(size), pyro.param("weight", torch.tensor(0.8))
        with pyro.plate("groups", size, dim=-1):
            a = pyro.sample("a", dist.Bernoulli(logits=logits))
            with pyro.plate("members", 2, dim=-2):
                pyro.sample("z", dist.Bernoulli(logits=weight * a - 0.3))

    return model, guide


def other_order(size: int) -> Programs:
    """The guide walks back through the states that the model walks forth."""
    data = _data(size)

    def guide() -> None:
        logits, weight, state = _logits(size), pyro.param("weight", torch.tensor(0.8)), torch.zeros(())
        for t in reversed(range(size)):
            state = pyro.sample(f"z_{t}", dist.Bernoulli(logits=logits[t] + weight * state))

    def model() -> None:
        state = torch.zeros(())
        for t in range(size):
            state = pyro.sample(f"z_{t}", dist.Bernoulli(logits=1.2 * (2 * state - 1)))
            pyro.sample(f"x_{t}", dist.Normal(2 * state, 1.0), obs=data[t])

    return model, guide


def crossed_plates(size: int) -> Programs:
    """Rows and columns, each with a switch, and an observation where they meet."""
    data = _data(2 * size).reshape(2, size)

    def model() -> None:
        rows, columns = pyro.plate("rows", 2, dim=-2), pyro.plate("columns", size, dim=-1)
        with rows:
            a = pyro.sample("a", dist.Bernoulli(0.4))
        with columns:
            b = pyro.sample("b", dist.Bernoulli(0.6))
        with rows, columns:
            pyro.sample("x", dist.Normal(a + b, 1.0), obs=data)

    def guide() -> None:
        with pyro.plate("rows", 2, dim=-2):
            pyro.sample("a", dist.Bernoulli(logits=pyro.param("row_logits", torch.tensor([[0.3], [-0.4]]))))
        with pyro.plate("columns", size, dim=-1):
            pyro.sample("b", dist.Bernoulli(logits=_logits(size)))

    return model, guide


def auxiliary(size: int) -> Programs:
    """The guide draws a helper for each switch, of which the model knows nothing."""
    data = _data(size)

    def model() -> None:
        with pyro.plate("data", size):
            z = pyro.sample("z", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(2 * z, 1.0), obs=data)

    def guide() -> None:
        weight = pyro.param("weight", torch.tensor(0.8))
        with pyro.plate("data", size):
            helper = pyro.sample("helper", dist.Bernoulli(logits=_logits(size)), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Bernoulli(logits=weight * (2 * helper - 1)))

    return model, guide


def subsampled(size: int, whole: bool = False) -> Programs:
    """A global Gaussian, and half of the local switches at a time; all of them if ``whole``."""
    data, drawn = _data(size), size if whole else size // 2

    def model() -> None:
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        with pyro.plate("data", size, subsample_size=drawn) as places:
            z = pyro.sample("z", dist.Bernoulli(0.4))
            pyro.sample("x", dist.Normal(2 * z + g, 1.0), obs=data[places])

    def guide() -> None:
        pyro.sample("g", dist.Normal(pyro.param("mean", torch.tensor(0.1)), 0.5))
        with pyro.plate("data", size, subsample_size=drawn) as places:
            pyro.sample("z", dist.Bernoulli(logits=_logits(size)[places]))

    return model, guide


def topic_model(size: int) -> Programs:
    """Topics that a global Gaussian sharpens, a share of them for each document, and a topic for each word.

    The guide's Gaussians of documents and topics of words are functions of the words, the same for all documents.
    """
    words = (torch.arange(2 * size) * 5 // 3 % 3).reshape(2, size)

    def model() -> None:
        sharpness = pyro.sample("sharpness", dist.Normal(1.0, 1.0))
        with pyro.plate("documents", size, dim=-1):
            share = pyro.sample("share", dist.Normal(0.0, 1.0))
            with pyro.plate("words", 2, dim=-2):
                z = pyro.sample("z", dist.Categorical(logits=torch.stack([share, -share], -1)))
                pyro.sample("x", dist.Categorical(logits=(sharpness * TOPICS)[z]), obs=words)

    def guide() -> None:
        table = pyro.param("table", torch.tensor([[0.5, -0.5], [0.1, 0.2], [-0.4, 0.6]]))
        weight = pyro.param("weight", torch.tensor(0.3))
        pyro.sample("sharpness", dist.Normal(pyro.param("mean", torch.tensor(0.8)), 0.4))
        with pyro.plate("documents", size, dim=-1):
            means = weight * (table[words, 0] - table[words, 1]).sum(-2)
            pyro.sample("share", dist.Normal(means, 0.6))
            with pyro.plate("words", 2, dim=-2):
                pyro.sample("z", dist.Categorical(logits=table[words]))

    return model, guide


def sequential_plate(size: int) -> Programs:
    """A global Gaussian, then a loop over local switches."""
    data = _data(size)

    def model() -> None:
        g = pyro.sample("g", dist.Normal(0.0, 1.0))
        for i in pyro.plate("data", size):
            z = pyro.sample(f"z_{i}", dist.Bernoulli(0.4))
            pyro.sample(f"x_{i}", dist.Normal(2 * z + g, 1.0), obs=data[i])

    def guide() -> None:
        logits = _logits(size)
        pyro.sample("g", dist.Normal(pyro.param("mean", torch.tensor(0.1)), 0.5))
        for i in pyro.plate("data", size):
            pyro.sample(f"z_{i}", dist.Bernoulli(logits=logits[i]))

    return model, guide


def mixed(size: int) -> Programs:
    """Of each datum a switch, a Gaussian drawn from it that is not reparameterized, and a last one that is."""
    data = _data(size)

    def model() -> None:
        with pyro.plate("data", size):
            k = pyro.sample("k", dist.Bernoulli(0.4))
            y = pyro.sample("y", dist.Normal(2 * k, 1.0))
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=data)

    def guide() -> None:
        means, weight = pyro.param("means", torch.full((2,), 0.3)), pyro.param("weight", torch.tensor(0.5))
        with pyro.plate("data", size):
            k = pyro.sample("k", dist.Bernoulli(logits=_logits(size)))
            y = pyro.sample("y", dist.Normal(means[0] + k, 0.8).has_rsample_(False))
            pyro.sample("z", dist.Normal(means[1] + weight * y, 0.7))

    return model, guide


def all_shapes() -> dict[str, Callable[[int], Programs]]:
    """Every one of them, by name."""
    shapes: Iterable[Callable[[int], Programs]] = (
        chain, fork, collider, global_and_local, nested_plates, other_order, crossed_plates, auxiliary, subsampled,
        topic_model, sequential_plate, mixed,
    )  # fmt: skip
    return {shape.__name__: shape for shape in shapes}


def _data(size: int) -> Tensor:
    """Observations of switches, some of them on."""
    return 1.0 + 1.5 * torch.sin(2.0 * torch.arange(size) + 1)


def _logits(size: int) -> Tensor:
    """The guide's logits, a parameter."""
    found: Tensor = pyro.param("logits", lambda: 0.5 * torch.cos(torch.arange(float(size))))
    return found
