"""What a run may go on from: its own program and its own files."""

from __future__ import annotations

import functools
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import CategoricalPolicy, ExpectedReturn, GaussianPolicy, InvalidInput, ScoreFunction
from ppgrad.envs import CartPole, Environment, GymnasiumEnv, Pendulum, rollout
from ppgrad.envs.spaces import Box

fit = functools.partial(ppgrad.fit, progress=False)
score = functools.partial(ExpectedReturn, ScoreFunction())


def chain(length: int = 3, plate: int = 4, kind: Any = dist.Normal) -> Callable[[], None]:
    def program() -> None:
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("episodes", plate):
            for t in range(length):
                ppgrad.cost(f"f_{t}", (ppgrad.policy(f"x_{t}", kind(loc, 1.0)) - 3) ** 2)

    return program


def train(program: Callable[[], Any], path: Path, steps: int, **options: Any) -> ppgrad.History:
    pyro.clear_param_store()
    return fit(score(), program, steps=steps, checkpoint=path, resume=True, **options)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (chain(length=5), "site 'x_3' is missing there and Normal of shape .* here"),
        (chain(length=2), "site 'x_2' is Normal .* there and missing here"),
        (chain(plate=7), r"site 'x_0' is .*plates episodes=4 there and .*episodes=7 here"),
        (chain(kind=dist.Laplace), "site 'x_0' is Normal .* there and Laplace"),
    ],
    ids=["longer", "shorter", "plate", "distribution"],
)
def test_another_program_with_the_same_parameters(other: Callable[[], None], words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    train(chain(), path, 2)
    held = path.read_bytes()
    with pytest.raises(InvalidInput, match=f"run.pt is of another program: {words}") as error:
        train(other, path, 4)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == held
    assert train(chain(), path, 4).steps == 4


class Line(Environment):
    """An environment that does not say how to print it."""

    def __init__(self, push: float):
        self.push = push

    @property
    def action_space(self) -> Box:
        return Box((1,), -1.0, 1.0)

    def initial(self, episodes: int) -> torch.Tensor:
        return torch.zeros(episodes, 3)

    def transition(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return state + self.push * action

    def reward(self, state: torch.Tensor, action: torch.Tensor, next_state: torch.Tensor) -> torch.Tensor:
        return -next_state.square().sum(-1)


@pytest.mark.parametrize(
    ("env", "options", "words"),
    [
        (Line(0.5), {}, r"environment is Line\(push=0.1\) there and Line\(push=0.5\) here"),
        (Pendulum(), {}, r"environment is Line\(push=0.1\) there and Pendulum\(.*gravity=10"),
        (Pendulum(gravity=2.0), {}, r"Pendulum\(gravity=2.0"),
        (GymnasiumEnv("Pendulum-v1"), {}, r"environment is .* there and GymnasiumEnv\('Pendulum-v1'\) here"),
        (GymnasiumEnv("Pendulum-v1", g=2.0), {}, r"GymnasiumEnv\('Pendulum-v1', g=2.0\) here"),
        (Line(0.1), {"horizon": 5}, "horizon is 4 there and 5 here"),
        (Line(0.1), {"episodes": 3}, "number of episodes is 2 there and 3 here"),
    ],
    ids=["constant", "environment", "gravity", "Gymnasium", "keyword", "horizon", "episodes"],
)
def test_another_rollout(env: Any, options: dict[str, int], words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    policy = GaussianPolicy(3, 1, hidden=())
    sizes = {"horizon": 4, "episodes": 2}
    train(rollout(Line(0.1), policy, **sizes), path, 1)
    other = rollout(env, policy, **{**sizes, **options})
    for program in (other, lambda: other()):
        with pytest.raises(InvalidInput, match=f"of another program: the .*{words}"):
            train(program, path, 2)


def test_which_sites_there_are_may_depend_on_draws(tmp_path: Path) -> None:
    def program() -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        for t in range(20):
            x = ppgrad.policy(f"x_{t}", dist.Normal(loc, 1.0))
            ppgrad.cost(f"f_{t}", x**2)
            if x > 0.5:
                break

    for seed in range(5):
        path = tmp_path / f"{seed}.pt"
        for steps in (1, 2):
            ppgrad.fit(score(), program, steps=steps, checkpoint=path, resume=True, seed=None, progress=False)
    cart_pole = rollout(GymnasiumEnv("CartPole-v1"), CategoricalPolicy(4, 2, hidden=()), 100)
    for steps in (1, 2, 3):
        history = fit(score(), cart_pole, steps=steps, checkpoint=tmp_path / "a.pt", resume=True, seed=None)
    assert history.steps == 3


def test_a_rollout_tells_what_it_was_made_of() -> None:
    env, policy = CartPole(), CategoricalPolicy(4, 2)
    assert rollout(env, policy, 7, episodes=3).rollout == (env, policy, 7, 3)


def test_settings_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    train(chain(), path, 1, settings={"rooms": 3, "name": "a"})
    with pytest.raises(InvalidInput, match=r"trained with rooms=3, and this one rooms=4\. Write rooms=3 to go on"):
        train(chain(), path, 2, settings={"rooms": 4, "name": "a"})
    assert train(chain(), path, 2, settings={"rooms": 3, "name": "a"}).steps == 2


def test_steps_belong_to_a_schedule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.pt"
    train(chain(), path, 4, schedule="linear")
    with pytest.raises(InvalidInput, match="steps=4, and this one steps=8, and its schedule depends on it"):
        train(chain(), path, 8, schedule="linear")
    constant = tmp_path / "constant.pt"
    train(chain(), constant, 4)
    assert train(chain(), constant, 6).steps == 6
    with caplog.at_level(logging.WARNING, "ppgrad"):
        assert train(chain(), constant, 3).steps == 6
    assert "is of step 6, and steps=3: nothing is left to do" in caplog.text


def test_a_log_without_its_checkpoint_is_not_written_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "run.pt"
    train(chain(), path, 2, log_folder=tmp_path)
    path.unlink()
    held = (tmp_path / "progress.csv").read_bytes()
    with pytest.raises(InvalidInput, match=r"progress.csv is there already, and there is no checkpoint .*run.pt"):
        train(chain(), path, 2, log_folder=tmp_path)
    assert (tmp_path / "progress.csv").read_bytes() == held
    with caplog.at_level(logging.WARNING, "ppgrad"):
        train(chain(), tmp_path / "misspelt.pt", 1)
    assert "There is no checkpoint" in caplog.text
    assert "misspelt.pt to go on from: starting anew" in caplog.text


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_log_that_cannot_grow_ends_in_a_whole_row(tmp_path: Path) -> None:
    path, log = tmp_path / "run.pt", tmp_path / "log"
    with (
        files_no_longer_than(40_000),
        pytest.raises(
            InvalidInput, match=r"progress.csv cannot be written: File too large. Free .* The last good.*run.pt"
        ) as error,
    ):
        train(chain(), path, 2000, log_folder=log, checkpoint_every=2000)
    assert "\n" not in str(error.value)
    rows = (log / "progress.csv").read_text().splitlines(keepends=True)
    assert rows[-1].endswith("\n")
    assert len({row.count(",") for row in rows}) == 1
    step = torch.load(path, weights_only=True)["content"]["step"]
    assert len(rows) - 1 > step == 0
    assert train(chain(), path, step + 60, log_folder=log).steps == step + 60
    assert len((log / "progress.csv").read_text().splitlines()) == step + 61


def test_a_checkpoint_that_cannot_be_written_says_so_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with files_no_longer_than(1000), pytest.raises(InvalidInput, match=r"run.pt cannot be written: File too large"):
        train(chain(), path, 2)
    assert not list(tmp_path.iterdir())
