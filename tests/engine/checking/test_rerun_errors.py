"""Errors of runs that only a check has made: logged, and told apart by whose they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

import ppgrad
from ppgrad import ExpectedReturn, InverseVariance, Pathwise
from ppgrad.engine.checking import coupled_slices, dropped_costs, jumps
from ppgrad.testing.problems import parameters


class OutOfRange(Exception):
    """What a simulator raises, of a class of its own."""


def program(after: Callable[[torch.Tensor], None] = lambda x: None) -> None:
    """A cost without a path, in a plate: all three checks run it again."""
    with pyro.plate("n", 2):
        x = ppgrad.policy("x", dist.Normal(parameters({"m": 0.0})["m"], 1.0))
        after(x)
        ppgrad.cost("steps", (x.detach() > 5.0).to(x.dtype))
        ppgrad.cost("f", x**2)


def in_the_first_run_only() -> Callable[[torch.Tensor], None]:
    runs = 0

    def after(x: torch.Tensor) -> None:
        nonlocal runs
        runs += 1
        if runs > 1:
            raise OutOfRange("no such state")

    return after


def prepared(estimator: ppgrad.Estimator, **arguments: Any) -> None:
    ExpectedReturn(estimator).prepare(program, None, (), arguments)


def test_an_error_of_the_program_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ppgrad"), pytest.raises(OutOfRange):
        prepared(Pathwise(), after=in_the_first_run_only())
    told = [record for record in caplog.records if "It is not known" in record.message]
    assert {record.levelname for record in told} == {"DEBUG"}
    assert [record.message for record in told] == [
        "It is not known whether a cost has no gradient path to a draw that moves it: OutOfRange: no such state",
        "It is not known whether the slices of plates are apart: OutOfRange: no such state",
    ]


@pytest.mark.parametrize("module", [coupled_slices, dropped_costs], ids=lambda m: m.__name__.rpartition(".")[2])
def test_a_mistake_of_the_engine_is_a_warning(
    module: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "same", None)  # a planted mistake: it cannot be called
    prepared(Pathwise())
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "It is not known whether" in warning.message
    assert "mistake in ppgrad (TypeError: 'NoneType' object is not callable)" in warning.message
    assert warning.exc_info


def test_a_mistake_in_the_search_for_jumps_is_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jumps, "constraints", None)  # a planted mistake: it has no attribute
    ExpectedReturn(InverseVariance()).loss_and_grads(program, None)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings
    assert all("It is not known whether the cost jumps as site 'x' moves" in message for message in warnings)


def test_checks_that_work_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "ppgrad"):
        prepared(Pathwise())
        ExpectedReturn(InverseVariance()).loss_and_grads(program, None)
    assert not [record for record in caplog.records if "It is not known" in record.message]
