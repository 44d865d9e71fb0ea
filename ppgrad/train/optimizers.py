"""One way to speak to torch's optimizers, Pyro's, and the schedules of both."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from ppgrad.core import InvalidInput
from ppgrad.train.natural_gradient import NaturalGradient
from ppgrad.train.schedules import (
    SCHEDULE_EXAMPLE,
    SCHEDULES,
    advance_schedule,
    current_rate,
    described,
    made_schedule,
    name_of,
)

_OPTIMIZER = (
    "Write optimizer=torch.optim.Adam, functools.partial(torch.optim.SGD, momentum=0.9), or pyro.optim.Adam(…)."
)


class Stepper(ABC):
    """Moves parameters along their gradients, and changes the learning rate as scheduled."""

    @abstractmethod
    def own(self, parameters: Mapping[str, Tensor], critics: Mapping[str, Tensor]) -> None:
        """Be told of all parameters that there are by now, the program's and the critics'."""

    @abstractmethod
    def step(self, evaluate: Callable[[], Tensor]) -> Tensor:
        """Evaluate the loss and its gradients, and move."""

    @abstractmethod
    def advance(self, loss: float) -> None:
        """Go on in the schedule."""

    @property
    @abstractmethod
    def learning_rate(self) -> float:
        """Of the next step; that of the first parameter, if they differ."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All that the next steps depend on."""

    @abstractmethod
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Optimizer and schedule with their settings, by name."""


def stepper(
    optimizer: Any, learning_rate: float | None, schedule: Any, steps: int, critic_optimizer: Any = None
) -> Stepper:
    """The stepper for what a person passes.

    Raises:
        InvalidInput: no optimizer, no schedule, or two that do not fit.
    """
    main = _main_stepper(optimizer, learning_rate, schedule, steps)
    if critic_optimizer is None and not isinstance(optimizer, NaturalGradient):
        return main
    try:
        critics = _main_stepper(critic_optimizer, None, None, steps)
    except InvalidInput as error:
        raise InvalidInput(f"critic_{error}") from error
    return Apart(main, critics)


def _main_stepper(optimizer: Any, learning_rate: float | None, schedule: Any, steps: int) -> Stepper:
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise InvalidInput(f"schedule={schedule!r}: write one of {', '.join(SCHEDULES)}, or a torch LR schedule.")
    schedule = None if schedule == "constant" else schedule
    if schedule is not None and not isinstance(schedule, str | LRScheduler) and not callable(schedule):
        raise InvalidInput(f"schedule={schedule!r} is no learning-rate schedule. {SCHEDULE_EXAMPLE}")
    if optimizer is NaturalGradient:
        raise InvalidInput("optimizer=NaturalGradient lacks its program or guide. Write NaturalGradient(program).")
    if isinstance(optimizer, NaturalGradient):
        if learning_rate is not None:
            raise InvalidInput(
                f"learning_rate={learning_rate:g} beside NaturalGradient. Write NaturalGradient(…, lr=…), for critics "
                "critic_optimizer=functools.partial(torch.optim.Adam, lr=…)."
            )
        return PyroStepper(optimizer, made_schedule(schedule, optimizer, steps), schedule, steps)
    if isinstance(optimizer, PyroOptim):
        if schedule is not None:
            raise InvalidInput("schedule= goes with a torch optimizer. Write a Pyro one, as pyro.optim.ExponentialLR.")
        if learning_rate is not None:
            raise InvalidInput(f"learning_rate={learning_rate:g} beside a Pyro optimizer. Write it into the optimizer.")
        return PyroStepper(optimizer)
    if isinstance(optimizer, torch.optim.Optimizer):
        if learning_rate is not None:
            raise InvalidInput(
                f"learning_rate={learning_rate:g} beside an optimizer that is made already. Write lr= into the "
                "optimizer, or pass its class."
            )
    elif optimizer is not None and not callable(optimizer):
        raise InvalidInput(f"optimizer={optimizer!r} is no optimizer. {_OPTIMIZER}")
    return TorchStepper(torch.optim.Adam if optimizer is None else optimizer, learning_rate, schedule, steps)


class TorchStepper(Stepper):
    """A torch optimizer: an instance, a class, or a function of the parameters that makes one."""

    def __init__(self, optimizer: Any, learning_rate: float | None, schedule: Any, steps: int):
        self._steps = steps
        self._make, self._learning_rate = optimizer, learning_rate
        self._make_schedule = schedule
        self._optimizer: torch.optim.Optimizer | None = None
        self._schedule: LRScheduler | None = None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            raise TypeError("the stepper does not know any parameters yet: see own")
        return self._optimizer

    def own(self, parameters: Mapping[str, Tensor], critics: Mapping[str, Tensor]) -> None:
        parameters = {**parameters, **critics}
        if self._optimizer is None:
            self._optimizer = self._made(parameters)
            self._schedule = made_schedule(self._make_schedule, self._optimizer, self._steps)
        held = {id(leaf) for group in self._optimizer.param_groups for leaf in group["params"]}
        missing = {name: leaf for name, leaf in parameters.items() if id(leaf) not in held}
        if missing and isinstance(self._make, torch.optim.Optimizer):
            raise InvalidInput(
                f"The optimizer does not hold parameter '{next(iter(missing))}'. Pass the optimizer's class, add the "
                "parameter to it, or freeze it with requires_grad_(False)."
            )
        self._optimizer.param_groups[0]["params"].extend(missing.values())

    def _made(self, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        if isinstance(self._make, torch.optim.Optimizer):
            return self._make
        options = {} if self._learning_rate is None else {"lr": self._learning_rate}
        try:
            made = self._make(list(parameters.values()), **options)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"optimizer={name_of(self._make)} cannot be made: {error}. {_OPTIMIZER}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise InvalidInput(f"optimizer={name_of(self._make)} makes {made!r}, which is none. {_OPTIMIZER}")
        return made

    def step(self, evaluate: Callable[[], Tensor]) -> Tensor:
        if isinstance(self.optimizer, torch.optim.LBFGS):  # evaluates as often as it likes
            return self.optimizer.step(evaluate)  # type: ignore[no-untyped-call]
        loss = evaluate()
        self.optimizer.step()
        return loss

    def advance(self, loss: float) -> None:
        advance_schedule(self._schedule, loss)

    @property
    def learning_rate(self) -> float:
        return current_rate(self.optimizer)

    def state(self) -> dict[str, Any]:
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "schedule": schedule}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])

    def describe(self) -> dict[str, str]:
        names = {"lr": "learning_rate"}
        settings = {names.get(key, key): _plain(value) for key, value in self.optimizer.defaults.items()}
        schedule = described(self._make_schedule, self._schedule, self._steps)
        return {"optimizer": type(self.optimizer).__name__, **settings, **schedule}


class PyroStepper(Stepper):
    """A Pyro optimizer or scheduler, called as ``SVI`` calls it."""

    def __init__(
        self, optimizer: PyroOptim, schedule: LRScheduler | None = None, make_schedule: Any = None, steps: int = 0
    ):
        self.optimizer = optimizer
        self._schedule, self._make_schedule, self._steps = schedule, make_schedule, steps
        self._parameters: dict[str, Tensor] = {}

    def own(self, parameters: Mapping[str, Tensor], critics: Mapping[str, Tensor]) -> None:
        self._parameters = {**parameters, **critics}

    def step(self, evaluate: Callable[[], Tensor]) -> Tensor:
        loss = evaluate()
        self.optimizer(list(self._parameters.values()))
        return loss

    def advance(self, loss: float) -> None:
        advance_schedule(self._schedule, loss)
        if isinstance(self.optimizer, PyroLRScheduler):
            for scheduler in self._each():
                advance_schedule(scheduler, loss)

    def _each(self) -> list[Any]:
        each: Mapping[Tensor, Any] = getattr(self.optimizer, "optim_objs", {})
        return list(each.values()) or [self.optimizer]

    @property
    def learning_rate(self) -> float:
        first = self._each()[0]
        if not hasattr(first, "param_groups") and not hasattr(first, "optimizer"):
            settings = getattr(self.optimizer, "pt_optim_args", None)
            return float(settings.get("lr", math.nan)) if isinstance(settings, dict) else math.nan
        return current_rate(getattr(first, "optimizer", first))

    def state(self) -> dict[str, Any]:
        schedule = None if self._schedule is None else self._schedule.state_dict()
        return {"optimizer": dict(self.optimizer.get_state()), "schedule": schedule}

    def restore(self, state: Mapping[str, Any]) -> None:
        # What it knows of a parameter would stand in the way of the state that waits for it.
        getattr(self.optimizer, "optim_objs", {}).clear()
        self.optimizer.set_state(dict(state["optimizer"]))
        if self._schedule is not None:
            self._schedule.load_state_dict(state["schedule"])

    def describe(self) -> dict[str, str]:
        settings = {
            key: getattr(self.optimizer, key, None) for key in ("pt_optim_args", "pt_clip_args", "kwargs", "defaults")
        }
        made = [
            name_of(getattr(self.optimizer, key, None)) for key in ("pt_optim_constructor", "pt_scheduler_constructor")
        ]
        name = " ".join([type(self.optimizer).__name__, *(word for word in made if word != "NoneType")])
        known = {key: item for value in settings.values() if isinstance(value, dict) for key, item in value.items()}
        schedule = described(self._make_schedule, self._schedule, self._steps)
        return {"optimizer": name, **{str(key): _plain(item) for key, item in known.items()}, **schedule}


class Apart(Stepper):
    """The program's parameters by one stepper, its critics by another, at a learning rate that stays."""

    def __init__(self, program: Stepper, critics: Stepper):
        self._program, self._critics = program, critics
        self._has_critics = False

    def own(self, parameters: Mapping[str, Tensor], critics: Mapping[str, Tensor]) -> None:
        self._program.own(parameters, {})
        self._has_critics = bool(critics)
        if critics:
            self._critics.own({}, critics)

    def step(self, evaluate: Callable[[], Tensor]) -> Tensor:
        loss = self._program.step(evaluate)
        return self._critics.step(lambda: loss) if self._has_critics else loss

    def advance(self, loss: float) -> None:
        self._program.advance(loss)

    @property
    def learning_rate(self) -> float:
        return self._program.learning_rate

    def state(self) -> dict[str, Any]:
        critics = self._critics.state() if self._has_critics else None
        return {"program": self._program.state(), "critics": critics}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._program.restore(state["program"])
        if self._has_critics:
            self._critics.restore(state["critics"])

    def describe(self) -> dict[str, str]:
        critics = self._critics.describe() if self._has_critics else {}
        return self._program.describe() | {f"critic_{key}": value for key, value in critics.items()}


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    return name_of(value) if callable(value) or inspect.isclass(value) else repr(value)
