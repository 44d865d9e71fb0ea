"""JAX and NumPyro: the same gradients by `scan` and `jit`, one update of `numpyro.infer.SVI`."""

from __future__ import annotations

import os

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from worker import Step, serve


def rollout(
    kind: str, estimator: str, steps: int, episodes: int, leave_one_out: bool, hidden: int, dimension: int
) -> Step:
    """One gradient of benchmarks/rollouts.py, the noise drawn in one call."""
    scalar, discrete = kind == "scalar", kind == "categorical"
    shape = (episodes,) if scalar else (episodes, dimension)
    start = jnp.linspace(-1.0, 1.0, episodes) if scalar else jnp.sin(jnp.arange(episodes * dimension)).reshape(shape)
    pushes = 0.1 * jnp.eye(dimension)
    weights = np.random.default_rng(0)
    if scalar:
        parameters: dict[str, Any] = {"gain": jnp.array(-0.5), "log_scale": jnp.array(-1.0)}
    else:
        parameters = {
            "w1": jnp.array(weights.uniform(-0.5, 0.5, (dimension, hidden)), jnp.float32),
            "b1": jnp.zeros(hidden),
            "w2": jnp.array(weights.uniform(-0.125, 0.125, (hidden, dimension)), jnp.float32),
            "b2": jnp.zeros(dimension),
            "log_scale": jnp.full(dimension, -1.0),
        }

    def policy(parameters: Any, state: Any) -> Any:
        if scalar:
            return parameters["gain"] * state
        return jnp.tanh(state @ parameters["w1"] + parameters["b1"]) @ parameters["w2"] + parameters["b2"]

    def loss(parameters: Any, noise: Any) -> Any:
        scale = jnp.exp(parameters["log_scale"])

        def step(state: Any, noise: Any) -> Any:
            output = policy(parameters, state)
            if discrete:
                action = jnp.argmax(output + noise, -1)
                log_prob = jnp.take_along_axis(jax.nn.log_softmax(output), action[:, None], -1)[:, 0]
                state = 0.9 * state + pushes[action]
            else:
                action = output + scale * noise
                action = action if estimator == "pathwise" else jax.lax.stop_gradient(action)
                log_prob = -0.5 * ((action - output) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)
                log_prob = log_prob if scalar else log_prob.sum(-1)
                state = state + action if scalar else 0.9 * state + 0.1 * action
            reward = -(state**2) if scalar else -(state**2).sum(-1)
            return state, (log_prob, reward)

        _, (log_probs, rewards) = jax.lax.scan(step, start, noise)
        if estimator == "pathwise":
            return -rewards.sum()
        to_go = jnp.cumsum(rewards[::-1], 0)[::-1]
        if leave_one_out:
            to_go = to_go - (to_go.sum(-1, keepdims=True) - to_go) / (episodes - 1)
        return -(log_probs * jax.lax.stop_gradient(to_go)).sum()

    @jax.jit
    def gradient(parameters: Any, key: Any) -> Any:
        key, here = jax.random.split(key)
        draw = jax.random.gumbel if discrete else jax.random.normal
        return jax.grad(loss)(parameters, draw(here, (steps, *shape))), key

    return _keyed(lambda key: gradient(parameters, key))


def logistic_regression(data: str, learning_rate: float) -> Step:
    """One update of the guide of models/logistic_regression.py, jitted."""
    import numpyro
    import numpyro.distributions as dist

    with np.load(data) as arrays:
        x, y = jnp.array(arrays["x"], jnp.float32), jnp.array(arrays["y"], jnp.float32)

    def model() -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(x.shape[-1]), 1.0).to_event(1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    def guide() -> None:
        loc = numpyro.param("loc", jnp.zeros(x.shape[-1]))
        log_scale = numpyro.param("log_scale", jnp.zeros(x.shape[-1]))
        numpyro.sample("w", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    svi = numpyro.infer.SVI(model, guide, numpyro.optim.Adam(learning_rate), numpyro.infer.Trace_ELBO())
    state = svi.init(jax.random.PRNGKey(0))
    update = jax.jit(svi.update)

    def step() -> None:
        nonlocal state
        state, loss = update(state)
        loss.block_until_ready()

    return step


def _keyed(step: Any) -> Step:
    key = jax.random.PRNGKey(0)

    def keyed() -> Any:
        nonlocal key
        gradient, key = step(key)
        return jax.block_until_ready(gradient)

    return keyed


if __name__ == "__main__":
    serve({"rollout": rollout, "logistic_regression": logistic_regression}, ("jax", "numpyro"))
