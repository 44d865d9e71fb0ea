"""The same estimators written by hand in torch, without ppgrad and without Pyro.

`score_function` and `pathwise` are written as a text book writes them, with torch.distributions (their validation
off) and the returns from one cumulative sum after the loop. `stacked_score_function` is what one who counts
microseconds writes: the actions are drawn without a graph, and one pass of the policy over all steps at once gives
their log-probs, which no program whose policy has a memory could do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bernoulli_cost

from benchmarks.rollouts import Kind


def score_function(kind: Kind, policy: nn.Module, state: Tensor, steps: int, leave_one_out: bool) -> Tensor:
    """Minus the sum of log π(a_t | s_t) times the reward to go: its gradient estimates that of −J."""
    scale = policy.scale()
    log_probs, rewards = [], []
    for _ in range(steps):
        fn = kind.density(torch.distributions, policy(state), scale, validate_args=False)
        action = fn.sample()
        log_probs.append(fn.log_prob(action))
        state = kind.move(state, action)
        rewards.append(kind.reward(state))
    return -(torch.stack(log_probs) * advantages(torch.stack(rewards), leave_one_out)).sum()


def stacked_score_function(kind: Kind, policy: nn.Module, state: Tensor, steps: int, leave_one_out: bool) -> Tensor:
    """As `score_function`, with one pass over all steps for the log-probs."""
    states, actions, rewards = [], [], []
    with torch.no_grad():
        scale = policy.scale()
        noise = None if kind.discrete else torch.randn(steps, *state.shape)
        for t in range(steps):
            states.append(state)
            output = policy(state)
            if noise is None:
                action = torch.multinomial(output.softmax(-1), 1).squeeze(-1)
            else:
                action = torch.addcmul(output, noise[t], scale)
            actions.append(action)
            state = kind.move(state, action)
            rewards.append(kind.reward(state))
        advantage = advantages(torch.stack(rewards), leave_one_out)
    outputs, taken = policy(torch.stack(states)), torch.stack(actions)
    if kind.discrete:
        log_probs = outputs.log_softmax(-1).gather(-1, taken.unsqueeze(-1)).squeeze(-1)
    else:
        scale = policy.scale()
        log_probs = -0.5 * ((taken - outputs) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        log_probs = log_probs if state.dim() == 1 else log_probs.sum(-1)
    return -(log_probs * advantage).sum()


def advantages(rewards: Tensor, leave_one_out: bool) -> Tensor:
    """Rewards to go, shape ``(steps, episodes)``, less those of the other episodes where that is asked for."""
    to_go = rewards.flip(0).cumsum(0).flip(0)
    if leave_one_out:
        to_go = to_go - (to_go.sum(-1, keepdim=True) - to_go) / (to_go.shape[-1] - 1)
    return to_go


def pathwise(kind: Kind, policy: nn.Module, state: Tensor, steps: int) -> Tensor:
    """Minus the sum of rewards, the actions with a graph."""
    scale = policy.scale()
    rewards = []
    for _ in range(steps):
        action = kind.density(torch.distributions, policy(state), scale, validate_args=False).rsample()
        state = kind.move(state, action)
        rewards.append(kind.reward(state))
    return -torch.stack(rewards).sum()


def discrete_vae(vae: nn.Module, images: Tensor, particles: int, leave_one_out: bool) -> Tensor:
    """Minus the ELBO of models/discrete_vae.py, by the score function, and by the graph for decoder and prior."""
    logits = vae.encoder(images)
    with torch.no_grad():
        z = torch.bernoulli(logits.sigmoid().expand(particles, *logits.shape))
    log_q = -bernoulli_cost(logits.expand(z.shape), z, reduction="none").sum(-1)
    log_prior = -bernoulli_cost(vae.prior.expand(z.shape), z, reduction="none").sum(-1)
    pixels = vae.decoder(z)
    log_likelihood = -bernoulli_cost(pixels, images.expand(pixels.shape), reduction="none").sum(-1)
    generative = log_prior + log_likelihood
    signal = (log_q - generative).detach()
    if leave_one_out:
        signal = signal - (signal.sum(0) - signal) / (particles - 1)
    return (log_q * signal - generative).sum() / particles


def logistic_regression(x: Tensor, y: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Minus the ELBO of models/logistic_regression.py, one pathwise sample."""
    scale = log_scale.exp()
    noise = torch.randn_like(loc)
    w = loc + scale * noise
    log_prior = -0.5 * w.square().sum()
    log_q = -0.5 * noise.square().sum() - log_scale.sum()
    return log_q - log_prior + bernoulli_cost(x @ w, y, reduction="sum")
