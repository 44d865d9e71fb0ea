"""A semi-supervised autoencoder of digits: classes that are known, summed out, or drawn.

Images of 8 × 8 binary pixels, some of them with their class y, the others without:

    y ~ Categorical(softmax(w)),   h ~ N(0, I₄),   x | h, y ~ Bernoulli(logits = B tanh(A h + E[y]) + b),
    q(h | x) = N(μ(x), σ(x)²).

The classes of the images that have none are summed out with ``latent="summed"``, marked
``infer={"enumerate": "parallel"}``: the decoder runs for all ten side by side, and the bound is

    Σ_labelled E_q[log p(x, y | h)] + Σ_unlabelled E_q[log Σ_y p(x, y | h)] − Σ KL(q(h | x) ‖ N(0, I)).

With ``latent="drawn"`` the guide draws them from a classifier q(y | x), by whatever estimator. After training, either
knows a digit by Bayes' rule, p(y | x, h) ∝ p(x, y | h).

Source: Kingma, Rezende, Mohamed & Welling (2014), Semi-supervised learning with deep generative models, section 2.2;
the data: Alpaydin & Kaynak (1998), Optical recognition of handwritten digits, through scikit-learn.
"""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

LATENTS = ("summed", "drawn")
CLASSES = 10
LATENT = 4
HIDDEN = 32


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Binary images, shape (images, pixels), and their classes, in an order that is random and always the same."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ppgrad.InvalidInput(
            "models/semi_supervised.py has its digits from scikit-learn. Run pip install 'ppgrad[models]'."
        ) from error
    images, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pixels = torch.as_tensor(images, dtype=torch.get_default_dtype())[order]
    return (pixels > 8.0).to(pixels.dtype), torch.as_tensor(classes)[order]


class Autoencoder(torch.nn.Module):
    """Encoder, classifier, and a decoder of h and y whose classes broadcast against the images."""

    def __init__(self, pixels: int):
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(pixels, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 2 * LATENT)
        )
        self.classifier = torch.nn.Linear(pixels, CLASSES)
        self.of_latent = torch.nn.Linear(LATENT, HIDDEN)
        self.of_class = torch.nn.Embedding(CLASSES, HIDDEN)
        self.pixels = torch.nn.Linear(HIDDEN, pixels)
        self.prior = torch.nn.Parameter(torch.zeros(CLASSES))

    def encode(self, images: Tensor) -> dist.TorchDistribution:
        """q(h | x)."""
        loc, log_scale = self.encoder(images).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp()).to_event(1)

    def decode(self, latent: Tensor, classes: Tensor) -> dist.TorchDistribution:
        """p(x | h, y), for ``(…, images, 4)`` and classes of any shape that broadcasts to ``(…, images)``."""
        hidden = torch.tanh(self.of_latent(latent) + self.of_class(classes.long()))
        return dist.Bernoulli(logits=self.pixels(hidden)).to_event(1)


def autoencoder(pixels: int, seed: int = 0) -> Autoencoder:
    """An autoencoder with its weights drawn under ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(pixels)


def model(vae: Autoencoder, labelled: Tensor, classes: Tensor, unlabelled: Tensor, latent: str) -> None:
    prior = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
    with pyro.plate("labelled", len(labelled)):
        h = pyro.sample("h_labelled", prior)
        y = pyro.sample("y_labelled", dist.Categorical(logits=vae.prior), obs=classes)
        pyro.sample("x_labelled", vae.decode(h, y), obs=labelled)
    with pyro.plate("unlabelled", len(unlabelled)):
        h = pyro.sample("h", prior)
        infer = {"enumerate": "parallel"} if latent == "summed" else None
        y = pyro.sample("y", dist.Categorical(logits=vae.prior), infer=infer)
        pyro.sample("x", vae.decode(h, y), obs=unlabelled)


def guide(vae: Autoencoder, labelled: Tensor, classes: Tensor, unlabelled: Tensor, latent: str) -> None:
    with pyro.plate("labelled", len(labelled)):
        pyro.sample("h_labelled", vae.encode(labelled))
    with pyro.plate("unlabelled", len(unlabelled)):
        pyro.sample("h", vae.encode(unlabelled))
        if latent == "drawn":
            pyro.sample("y", dist.Categorical(logits=vae.classifier(unlabelled)))


def accuracy(vae: Autoencoder, images: Tensor, classes: Tensor) -> float:
    """How often the likeliest y under p(y | x, h), h at the mean of q(h | x), is the class."""
    with torch.no_grad():
        h = vae.encode(images).base_dist.loc
        every = torch.arange(CLASSES).unsqueeze(-1)
        joint = vae.decode(h, every).log_prob(images) + vae.prior.log_softmax(-1).unsqueeze(-1)
        return float((joint.argmax(0) == classes).float().mean())


def problem(labelled: int = 50, unlabelled: int = 20, latent: str = "summed", seed: int = 0) -> ppgrad.Problem:
    """The ELBO of digits, some of them labelled, at random weights.

    Args:
        labelled, unlabelled: how many images have their class, and how many have none.
        latent: the missing classes are "summed" out of the likelihood, or "drawn" by the guide.
        seed: of the initial weights.
    """
    images, classes = digits()
    if latent not in LATENTS:
        raise ppgrad.InvalidInput(f"latent={latent!r}: write one of {', '.join(LATENTS)}.")
    if labelled < 1 or unlabelled < 1 or labelled + unlabelled > len(images):
        raise ppgrad.InvalidInput(
            f"labelled={labelled}, unlabelled={unlabelled}: integers from 1 up, no more than {len(images)} together."
        )
    rest = images[labelled : labelled + unlabelled]
    return ppgrad.Problem(
        model=model,
        guide=guide,
        args=(autoencoder(images.shape[-1], seed), images[:labelled], classes[:labelled], rest, latent),
        objective=ppgrad.ELBO,
        about=f"digits, {labelled} labelled, {unlabelled} whose classes are {latent}",
    )
