"""``ppgrad train``: what it writes, how it goes on, how it fails."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import torch
from typer.testing import CliRunner

from ppgrad.cli.app import app

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
FILES = {"checkpoint.pt", "progress.csv", "history.nc", "training.png"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "ppgrad.cli", "train", *map(str, arguments)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["content"]["parameters"]


@pytest.fixture(autouse=True)
def no_handler_left_behind() -> Iterator[None]:
    """The command sends the log to what is standard error at the time."""
    handlers = list(logging.root.handlers)
    yield
    logging.root.handlers[:] = handlers


def train(*arguments: str | Path) -> tuple[int, str, str]:
    """In this process, which has torch loaded."""
    shown = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    return shown.exit_code, shown.stdout, shown.stderr


@pytest.mark.slow
def test_a_process_that_is_killed_and_resumed_ends_like_one_left_alone(tmp_path: Path) -> None:
    """In processes of their own, with other hash seeds: nothing depends on the order of a set."""
    arguments = (
        "models/gaussian_policy.py",
        "--steps",
        "150",
        "--estimator",
        "score+average",
        "--learning-rate",
        "0.01",
    )
    arguments += ("--checkpoint-every", "2", "--set", "covariance=diagonal")
    alone = subprocess.run(
        command(*arguments, "--out", tmp_path / "alone"),
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr
    assert {file.name for file in (tmp_path / "alone").iterdir()} == FILES
    assert "rollout/ep_rew_mean" in alone.stdout
    assert "%|" not in alone.stderr, "a progress bar where there is no terminal"
    killed = subprocess.Popen(
        command(*arguments, "--out", tmp_path / "killed"), env={**os.environ, "PYTHONHASHSEED": "2"}, cwd=ROOT
    )
    table = tmp_path / "killed" / "progress.csv"
    while killed.poll() is None and not (table.exists() and table.read_bytes().count(b"\n") > 20):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    steps = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["content"]["step"]
    assert 18 <= steps < 150
    code, _, errors = train(*arguments, "--out", tmp_path / "killed", "--resume")
    assert code == 0, errors
    one, other = weights(tmp_path / "alone"), weights(tmp_path / "killed")
    assert one.keys() == other.keys() == {f"policy.{a}.{b}" for a in ("hidden", "head") for b in ("weight", "bias")}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_settings_of_the_problem_and_of_the_command(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        (MODELS / "quadratic.py").read_text()
        + "\nfrom dataclasses import replace\n"
        + "def ready():\n"
        + "    settings = dict(steps=7, estimator='score+loo', num_particles=4, learning_rate=0.5, schedule='linear')\n"
        + "    return replace(problem(), training=settings)\n"
        + "def wrong():\n    return replace(problem(), training={'epochs': 3})\n"
        + "def off():\n    return replace(problem(), training={'estimator': 3})\n"
    )
    code, shown, errors = train(f"{program}:ready", "--out", tmp_path / "a")
    assert code == 0, errors
    assert "LeaveOneOut" in shown
    assert "num_particles=4" in shown
    table = pandas.read_csv(tmp_path / "a" / "progress.csv", index_col="step")
    assert len(table) == 7
    assert table["train/learning_rate"][1] == 0.5
    arguments = ("--steps", "3", "--estimator", "pathwise@2", "--optimizer", "sgd", "--checkpoint", tmp_path / "my.pt")
    code, shown, errors = train(f"{program}:ready", *arguments, "--out", tmp_path / "b", "--tensorboard")
    assert code == 0, errors
    assert "Pathwise(), num_particles=2" in shown
    assert (tmp_path / "my.pt").exists()
    assert len(pandas.read_csv(tmp_path / "b" / "progress.csv")) == 3
    assert any(file.name.startswith("events") for file in (tmp_path / "b").iterdir())
    for name, words in (("wrong", "'epochs': …} of"), ("off", "estimator=3")):
        code, _, errors = train(f"{program}:{name}", "--out", tmp_path / "c")
        assert code == 2
        assert words in errors
    assert not (tmp_path / "c").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    arguments = (MODELS / "quadratic.py", "--out", tmp_path / "out")
    assert train(*arguments, "--steps", "3")[0] == 0
    held = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    code, _, errors = train(*arguments, "--steps", "5")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "Add --resume" in errors
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == held
    assert train(*arguments, "--steps", "5", "--resume")[0] == 0
    assert len(pandas.read_csv(tmp_path / "out" / "progress.csv")) == 5


def test_another_program_is_not_resumed(tmp_path: Path) -> None:
    arguments = (MODELS / "cartpole.py", "--out", tmp_path / "out", "--set", "horizon=5", "--set", "episodes=2")
    assert train(*arguments, "--steps", "1")[0] == 0
    held = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    for setting, was in (("simulator=gymnasium", "simulator=torch"), ("horizon=6", "horizon=5")):
        code, _, errors = train(*arguments, "--steps", "2", "--resume", "--set", setting)
        assert (code, len(errors.splitlines())) == (2, 1)
        assert f"trained with --set {was}, and this one --set {setting}. Write --set {was} to go on" in errors
    copy = tmp_path / "copy.py"
    copy.write_text((MODELS / "cartpole.py").read_text().replace("CartPole()", "type('Hilly', (CartPole,), {})()"))
    code, _, errors = train(copy, *arguments[1:], "--steps", "2", "--resume")
    assert code == 2
    assert "PATH=cartpole.py:problem, and this one PATH=copy.py:problem" in errors
    (tmp_path / "below").mkdir()
    copy = copy.rename(tmp_path / "below" / "cartpole.py")
    code, _, errors = train(copy, *arguments[1:], "--steps", "2", "--resume")
    assert code == 2
    assert "the environment is CartPole() there and Hilly() here" in errors
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == held
    assert train(*arguments, "--steps", "2", "--resume", "--set", "hidden=32")[0] == 0, "said as by default"


def test_resume_without_a_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = (MODELS / "quadratic.py", "--out", tmp_path / "out", "--steps", "2", "--resume")
    assert train(*arguments)[0] == 0
    assert "There is no checkpoint" in caplog.text
    (tmp_path / "out" / "checkpoint.pt").unlink()
    held = (tmp_path / "out" / "progress.csv").read_bytes()
    code, _, errors = train(*arguments)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "progress.csv is there already, and there is no checkpoint" in errors
    assert "--out" in errors
    assert (tmp_path / "out" / "progress.csv").read_bytes() == held


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], ["steps=0"]),
        (["--particles", "0"], ["--particles 0", "1 or more"]),
        (["--seed", "-1"], ["seed=-1"]),
        (["--learning-rate", "-1"], ["learning_rate=-1"]),
        (["--optimizer", "magic"], ["--optimizer magic", "Adam"]),
        (["--schedule", "magic"], ["schedule='magic'", "cosine"]),
        (["--max-grad-norm", "0"], ["max_grad_norm=0"]),
        (["--estimator", "magic"], ["'magic' is unknown", "score"]),
        (["--estimator", "enumerate"], ["'x'", "Normal has no finite support"]),
        (["--evaluate-every", "0"], ["evaluate_every=0"]),
        (["--evaluation-episodes", "0"], ["evaluation_episodes=0"]),
        (["--checkpoint-every", "0"], ["checkpoint_every=0"]),
        (["--checkpoint", "README.md/run.pt"], ["README.md"]),
        (["--checkpoint", "models"], ["models", "there already"]),
        (["--checkpoint", "README.md", "--resume"], ["README.md is no checkpoint"]),
        (["--set", "nothing=1"], ["problem()", "nothing"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, shown, errors = train("models/quadratic.py", "--out", tmp_path / "out", *arguments)
    assert code == 2, shown + errors
    assert len(errors.splitlines()) == 1, errors
    assert errors.startswith("Error: ")
    assert all(word in errors for word in words), errors
    assert not (tmp_path / "out").exists(), "something half-written"


@pytest.mark.parametrize("place", ["README.md", "README.md/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, _, errors = train("models/quadratic.py", "--out", place)
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert place in errors
    assert "--out" in errors


@pytest.mark.usefixtures("ctrl_c")
def test_nan_and_ctrl_c(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, signal, pyro, torch, ppgrad, pyro.distributions as dist\n"
        "seen, sent = set(), []\n"
        "def program(kind):\n"
        "    x = ppgrad.policy('x', dist.Normal(pyro.param('loc', torch.tensor(0.0)), 1.0))\n"
        "    seen.add(pyro.param('loc').item())  # another value in every step\n"
        "    if len(seen) == 8 and kind == 'interrupt' and not sent:\n"
        "        sent.append(1)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    ppgrad.reward('r', x / (len(seen) < 8) if kind == 'nan' else x)\n"
        "def problem(kind='nan'):\n"
        "    return ppgrad.Problem(program, ppgrad.ExpectedReturn, 'fails', args=(kind,))\n"
    )
    arguments = (program, "--particles", "1", "--steps", "20", "--checkpoint-every", "3")
    code, _, errors = train(*arguments, "--out", tmp_path / "a")
    assert code == 2
    assert "Reward site 'r' is" in errors
    assert "at step 8. The last good checkpoint" in errors
    assert torch.load(tmp_path / "a" / "checkpoint.pt", weights_only=True)["content"]["step"] == 6
    code, _, errors = train(*arguments, "--set", "kind=interrupt", "--out", tmp_path / "b")
    assert code == 130
    assert "Interrupted after step 8. Go on from" in errors
    assert "Traceback" not in errors
    assert torch.load(tmp_path / "b" / "checkpoint.pt", weights_only=True)["content"]["step"] == 8


@pytest.mark.slow
def test_the_training_settings_of_a_model_reach_its_optimum(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("logistic_regression", MODELS / "logistic_regression.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code, _, errors = train(MODELS / "logistic_regression.py", "--out", tmp_path / "out")
    assert code == 0, errors
    assert -67.4634 - 1 < float(module.exact_elbo(**weights(tmp_path / "out"))) < -67.46


NETWORK = """
import pyro, torch, ppgrad, pyro.distributions as dist
def program(network):
    ppgrad.reward('r', -ppgrad.policy('x', dist.Normal(network(torch.ones(1)), 1.0).to_event(1)).sum() ** 2)
def from_the_generators():
    network = torch.nn.Linear(1, 1)
    return ppgrad.Problem(program, ppgrad.ExpectedReturn, 'a network', args=(network,))
def of_its_own(seed=0):
    generator = torch.Generator().manual_seed(seed)
    network = torch.nn.Linear(1, 1)
    torch.nn.init.normal_(network.weight, generator=generator)
    torch.nn.init.normal_(network.bias, generator=generator)
    return ppgrad.Problem(program, ppgrad.ExpectedReturn, 'a network', args=(network,))
"""


@pytest.mark.parametrize("name", ["from_the_generators", "of_its_own"])
def test_the_seed_is_that_of_the_initial_network_too(name: str, tmp_path: Path) -> None:
    program = tmp_path / "network.py"
    program.write_text(NETWORK)

    def initial(*arguments: str) -> tuple[float, ...]:
        """Trained at a learning rate of 0."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        code, _, errors = train(
            f"{program}:{name}", "--steps", "1", "--learning-rate", "0", *arguments, "--out", folder
        )
        assert code == 0, errors
        return tuple(float(value) for value in weights(folder).values())

    assert initial("--seed", "1") == initial("--seed", "1")
    assert initial("--seed", "0") == initial()
    assert len({initial("--seed", str(seed)) for seed in range(4)}) == 4
    if name == "of_its_own":
        assert initial("--seed", "1", "--set", "seed=0") == initial()
