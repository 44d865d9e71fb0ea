"""The command line: what it writes, what it says, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from ppgrad.cli import main

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
FILES = {
    "comparison.nc",
    "summary.csv",
    "totals.csv",
    "pairs.csv",
    "bias.png",
    "distributions.png",
    "variance_cost.png",
}


def ppgrad(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ppgrad.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_and_list() -> None:
    shown = ppgrad("--help")
    assert shown.returncode == 0
    assert "compare" in shown.stdout
    assert "models/gaussian_policy.py" in shown.stdout
    listed = ppgrad("list")
    assert listed.returncode == 0
    for word in ("score", "pathwise", "disarm", "local_expectation", "LeaveOneOut", "Williams"):
        assert word in listed.stdout


def test_compare_writes_everything(tmp_path: Path) -> None:
    shown = ppgrad("compare", MODELS / "step_reward.py", "--replicates", "200", "--out", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == FILES
    assert "found, p" in shown.stdout  # pathwise says 0 at a jump
    assert "Warning: Pathwise site 'x'" in shown.stderr
    assert "%|" not in shown.stderr, "a progress bar where there is no terminal"
    summary = pandas.read_csv(tmp_path / "out" / "summary.csv")
    assert {"score", "score+loo", "pathwise", "measure_valued", "inverse_variance"} <= set(summary["estimator"])
    assert "gumbel_softmax" in shown.stderr, "biased ones wait to be named"


def test_a_seed_fixes_the_numbers(tmp_path: Path) -> None:
    tables = []
    for name in ("a", "b"):
        arguments = ("--estimators", "score,score+loo@4", "--replicates", "50", "--seed", "3")
        shown = ppgrad("compare", MODELS / "quadratic.py", *arguments, "--out", tmp_path / name)
        assert shown.returncode == 0, shown.stderr
        tables.append(pandas.read_csv(tmp_path / name / "summary.csv").drop(columns=["seconds", "work_variance"]))
    pandas.testing.assert_frame_equal(*tables)
    assert set(tables[0]["evaluations"]) == {8, 4}


def test_settings_and_names(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text((MODELS / "quadratic.py").read_text() + "\n\nother = problem\nready = problem(mu=2.0)\n")
    for name in ("", ":other", ":ready"):
        settings = [] if name == ":ready" else ["--set", "mu=2.0"]
        path = f"{program}{name}"
        shown = ppgrad(
            "compare", path, *settings, "--estimators", "pathwise", "--replicates", "20", "--out", tmp_path / "out"
        )
        assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models/quadratic.py", "--replicates", "1"], ["--replicates 1", "2 or more"]),
        (["models/quadratic.py", "--particles", "0"], ["--particles 0", "1 or more"]),
        (["models/nowhere.py"], ["models/nowhere.py is no file"]),
        (["models"], ["models is no file"]),
        (["README.md"], ["README.md is no Python file"]),
        (["models/quadratic.py:nothing"], ["no nothing()"]),
        (["models/quadratic.py", "--estimators", "magic"], ["'magic' is unknown", "score"]),
        (["models/quadratic.py", "--estimators", "pathwise+loo"], ["only score reads a baseline"]),
        (["models/quadratic.py", "--estimators", "score+magic"], ["'magic' is unknown", "loo"]),
        (["models/quadratic.py", "--estimators", "score@0"], ["after @"]),
        (["models/quadratic.py", "--estimators", "score+loo@1"], ["num_particles=2"]),
        (["models/quadratic.py", "--estimators", "enumerate"], ["'x'", "Normal has no finite support"]),
        (["models/quadratic.py", "--estimators", "score,score"], ["'score' twice"]),
        (["models/quadratic.py", "--out", "README.md/below"], ["README.md/below cannot be written"]),
        (["models/quadratic.py", "--set", "nothing=1"], ["problem()", "nothing"]),
        (["models/quadratic.py", "--set", "mu"], ["KEY=VALUE"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert_refused(["compare", *arguments], words, monkeypatch, capfd)


def assert_refused(
    arguments: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process, which saves the seconds that another takes to start."""
    monkeypatch.setattr(sys, "argv", ["ppgrad", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    told = capfd.readouterr().err
    assert left.value.code == 2, told
    errors = [line for line in told.splitlines() if not line.startswith(("Left out", "Warning", "Note"))]
    assert len(errors) == 1, told
    assert errors[0].startswith("Error: ")
    assert all(word in errors[0] for word in words), errors[0]


def test_a_file_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    for source, words in (
        ("def problem(:\n", "SyntaxError"),
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
        ("x = 1\n", "has no problem()"),
        ("def problem():\n    return 1\n", "gives int"),
    ):
        broken.write_text(source)
        assert_refused(["compare", str(broken)], [words], monkeypatch, capfd)


def test_what_is_costly_waits_to_be_named(tmp_path: Path) -> None:
    shown = ppgrad("compare", MODELS / "logistic_regression.py", "--replicates", "4", "--out", tmp_path / "out")
    assert shown.returncode == 0, shown.stderr
    assert "unless --estimators names it: measure_valued (125 runs for one sample)" in shown.stderr
