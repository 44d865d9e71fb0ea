"""Storchastic: one gradient of the discrete autoencoder.

Of log q only the value is a cost, as in ppgrad: its own gradient has mean zero and would only add noise. Storchastic's
REBAR learns its scale and its temperature as it goes.
"""

from __future__ import annotations

import warnings

import numpy as np
import storch
import torch
from torch.distributions import Bernoulli
from worker import Step, serve

METHODS = {
    "score": lambda particles: storch.method.ScoreFunction("z", n_samples=particles, baseline_factory=None),
    "score+loo": lambda particles: storch.method.ScoreFunction(
        "z", n_samples=particles, baseline_factory="batch_average"
    ),
    "disarm": lambda particles: storch.method.DisARM("z", n_samples=particles),
    "rebar": lambda particles: storch.method.REBAR("z", n_samples=particles),
}


def discrete_vae(data: str, estimator: str, particles: int) -> Step:
    """Gradient of the mean over images of −ELBO; images, weights and estimator as ppgrad has them."""
    with np.load(data) as arrays:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    batch = tensors.pop("images")
    encoder, decoder = (_network(tensors, part) for part in ("encoder", "decoder"))
    prior = tensors["prior"].clone().requires_grad_()
    parameters = [*encoder.parameters(), *decoder.parameters(), prior]
    storch.reset()
    method = METHODS[estimator](particles)

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        images = storch.denote_independent(batch, 0, "images")
        logits = encoder(images)
        z = method(Bernoulli(logits=logits)).float()
        held = Bernoulli(logits=logits.detach())
        pixels = Bernoulli(logits=decoder(z))
        storch.add_cost(held.log_prob(z).sum(-1) - Bernoulli(logits=prior).log_prob(z).sum(-1), "divergence")
        storch.add_cost(-pixels.log_prob(images).sum(-1), "distortion")
        storch.backward()

    return step


def _network(tensors: dict[str, torch.Tensor], part: str) -> torch.nn.Sequential:
    layers = []
    for i in (0, 2):
        weight = tensors[f"{part}.{i}.weight"]
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": tensors[f"{part}.{i}.bias"]})
        layers.append(layer)
    return torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    serve({"discrete_vae": discrete_vae}, ("storchastic", "torch"))
