"""What every objective shares: the way from a program to a gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO as PyroELBO
from pyro.infer.elbo import ELBOModule
from pyro.infer.util import torch_backward, torch_item
from torch import Tensor

from ppgrad.core import Estimator, Facts, Memory, second_pass_explained
from ppgrad.core.draw import total
from ppgrad.core.garbage import OldObjectsKept
from ppgrad.core.generators import draws_up_front
from ppgrad.engine.assignment.assignment import Assignment, Choice
from ppgrad.engine.checking.explaining import check_record_finite, nonfinite_explained
from ppgrad.engine.checking.first_run import Prepared, prepare
from ppgrad.engine.checking.ordinary_run import traces
from ppgrad.engine.compiling.compiled import Compiled
from ppgrad.engine.program.fingerprint import Key, Same, called, kind
from ppgrad.engine.program.parameters import note_left_alone, register, register_again
from ppgrad.engine.program.program import Program, program_of
from ppgrad.engine.running.enumerating import Summing
from ppgrad.engine.running.executor import Executor
from ppgrad.engine.running.knowledge import Knowledge
from ppgrad.engine.running.record import Record, Served
from ppgrad.engine.running.sampler import Sizes
from ppgrad.engine.running.setup import Setup
from ppgrad.engine.running.site import Site
from ppgrad.objectives._shared.calibration import EVERY, recalibrated, recalled
from ppgrad.objectives._shared.compiling import Step, check_compile, compiled_replicates, compiled_step
from ppgrad.objectives._shared.dice import dice
from ppgrad.objectives._shared.estimate import Estimate
from ppgrad.objectives._shared.merging import merged
from ppgrad.objectives._shared.options import check_count, check_options
from ppgrad.objectives._shared.surrogates import surrogates

_REMEMBERED = 8
"""How many programs an objective remembers: the batches of an epoch come in few shapes."""


class Objective(PyroELBO):
    """What is wanted of a program; its gradient is estimated site by site.

    Args:
        estimator: serves every site that nothing else chooses for; None chooses pathwise where the
            distribution can, the score function otherwise.
        sites: ``{glob: estimator}``, or a function from a site's message to an estimator or None.
        num_particles: independent samples to average.
        strict: an error, not a warning, where no gradient path reaches any cost.
        max_branches: the most executions that summing over sites may take for one particle.
        vectorize_particles: run particles and branches under ``torch.func.vmap``. A program that
            vmap cannot carry runs in a loop, and a note in the log says why; False asks for the loop.
        compile: trace the gradient once, with its noise drawn in one call up front, and let ``torch.compile``
            compile it. Other shapes, other settings or other numbers that the program reads compile anew. The
            gradients have the same distribution, and are others under a seed. A word is the name of another
            backend of ``torch.compile``.
        options: as in ``pyro.infer.ELBO``, of which ``max_plate_nesting`` and ``retain_graph`` have an effect here.

    Raises:
        InvalidAssignment: something that is no estimator's instance was given as one.
        InvalidInput: ``num_particles`` or ``max_branches`` is below one, or no such option or backend is there.
    """

    model_may_draw: ClassVar[bool] = False
    """Whether a site that the model has and the guide lacks is no mistake."""

    def __init__(
        self,
        estimator: Estimator | None = None,
        *,
        sites: Choice = None,
        num_particles: int = 1,
        strict: bool = False,
        max_branches: int = 65536,
        vectorize_particles: bool = True,
        compile: bool | str = False,
        **options: Any,
    ):
        for name, value in (("num_particles", num_particles), ("max_branches", max_branches)):
            check_count(type(self), name, value)
        check_options(type(self), options)
        check_compile(type(self).__name__, compile)
        super().__init__(num_particles=num_particles, **options)
        self.vectorize_particles = vectorize_particles
        self.compile = compile
        self.estimator, self.sites = estimator, sites
        self.strict = strict
        self.max_branches = max_branches
        self.memory: dict[str, Memory] = {}
        self._since_calibration, self._reads_baselines = 0, True
        self._prepared: list[tuple[Any, Prepared]] = []
        self.graphs: dict[Any, Compiled | None] = {}
        self._assignment()

    all_orders: bool = False
    """Whether the costs keep terms whose gradient has mean zero: they have a second derivative."""

    weighs_guide: ClassVar[bool] = False
    """Whether the costs hold the density of the guide's draws, so that a weight's gradient can be rewritten."""

    sums_out: ClassVar[bool] = False
    """Whether sites that the model marks ``infer={"enumerate": …}`` and the guide lacks are summed out of it."""

    couples_lanes: ClassVar[bool] = False
    """Whether the objective is no sum over costs, so that every draw acts on all of it."""

    @property
    def splits_slices(self) -> bool:
        """Whether it is a sum over slices of a plate all the same, where slices share no draw."""
        return False

    @property
    def facts(self) -> Facts:
        """What is known of how the objective itself is estimated, whatever the estimators of its sites."""
        return Facts(source="")

    @property
    def wanted(self) -> type[Objective]:
        """The class of the objective whose gradient this one's estimates: mostly its own."""
        return type(self)

    @property
    def sizes(self) -> Sizes:
        """How many particles are averaged, of how many importance samples each."""
        return Sizes(self.num_particles, weighs_guide=self.weighs_guide)

    @abstractmethod
    def costs(self, sites: Sequence[Site]) -> Sequence[Tensor | None]:
        """The cost of each site of a run: what the objective adds up, with the sign turned."""

    def discounts(self, sites: Sequence[Site]) -> Sequence[float]:
        """For each site, by what a reward that is earned next is multiplied."""
        return [1.0] * len(sites)

    def check(self, program: Program) -> None:
        """Raise if the program does not have what the objective needs."""

    def with_choice(self, sites: Choice, num_particles: int = 1) -> Objective:
        """The same objective, its gradient estimated by ``sites`` alone, without memory or baselines."""
        other = object.__new__(self.wanted)
        other.__dict__.update(self.__dict__)
        other.estimator, other.sites, other.num_particles = None, sites, num_particles
        other.memory, other.graphs, other._prepared = {}, {}, []
        other._reads_baselines, other.compile = False, False
        return other

    def __repr__(self) -> str:
        chosen = ["" if self.estimator is None else repr(self.estimator)]
        chosen.append("" if self.sites is None else f"sites={self.sites!r}")
        chosen.append("" if self.num_particles == 1 else f"num_particles={self.num_particles}")
        return f"{type(self).__name__}({', '.join(filter(None, chosen))})"

    def prepare(self, model: Any, guide: Any = None, args: Any = (), kwargs: Any = None) -> Prepared:
        """Get to know a program: one validated run, remembered for the latest models, guides and shapes."""
        program = program_of(model, guide, args, kwargs)
        sums = self.sizes, self.couples_lanes, self.splits_slices
        numbers = *sums, self.max_branches, self.vectorize_particles
        choices = Key((Same(self.estimator), Same(self.sites), *numbers, program.structure))
        key = (called(model), called(guide), choices, tuple(map(kind, program.leaves)))
        prepared = next((known for seen, known in self._prepared if seen == key and not known.is_stale(program)), None)
        if prepared is None:
            self.check(program)
            setup = Setup(self._assignment(), self.costs, self.discounts, *sums)
            executor = Executor(program, setup, Knowledge(self.max_branches), self.vectorize_particles)
            executor.summing = Summing.of(self.max_plate_nesting) if self.sums_out else None
            prepared = prepare(executor, self.max_plate_nesting, self.strict, self.model_may_draw, choices)
            self._prepared = [(key, prepared), *(pair for pair in self._prepared if pair[0] != key)][:_REMEMBERED]
        prepared.executor.program = program
        register_again(prepared.parameters, prepared.registered)
        return prepared

    def estimate(
        self,
        executor: Executor,
        token: Tensor | float = 0.0,
        replacements: Mapping[int, Tensor] | None = None,
        memory: Mapping[str, Memory] | None = None,
    ) -> Estimate:
        """One estimate, as a pure function of the parameters, the memory and the generators' state."""
        memory = self.memory if memory is None else memory
        with nonfinite_explained(executor):
            records = executor.execute(token, replacements, memory)
        if not isinstance(token, Tensor) and not draws_up_front():
            check_record_finite(executor, records)
        loss, direct, served = self.combine(records)
        if not torch.is_grad_enabled():
            return Estimate(loss, loss, (), tuple(records))
        scores = total(surrogates(served, memory))
        return Estimate(loss, direct + scores / self.num_particles, served, tuple(records))

    def combine(self, records: Sequence[Record]) -> tuple[Tensor, Tensor, tuple[Served, ...]]:
        """The loss, a scalar; the same with the graph of its costs; the draws with their signals.

        An objective that is a sum of costs gives each draw the costs downstream of it.
        """
        cost = total([cost for record in records for cost in record.costs]) / self.num_particles
        served = [draw for record in records for draw in record.served()] if torch.is_grad_enabled() else []
        return cost, cost, merged(served)

    def surrogate_of_any_order(self, records: Sequence[Record], memories: Mapping[str, Memory]) -> Tensor:
        """A scalar whose derivatives of every order estimate those of the loss; needs ``all_orders``."""
        return torch.stack([dice(record, memories) for record in records]).sum() / self.num_particles

    def loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Minus the objective, estimated; a float."""
        prepared = self.prepare(model, guide, args, kwargs)
        step = self.compiled_step(prepared, self.memory)
        if step is not None:
            return torch_item(step.loss)
        with torch.no_grad():
            return torch_item(self.estimate(prepared.executor).loss)

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """A scalar whose value is `loss` and whose gradient estimates that of the loss."""
        prepared = self.prepare(model, guide, args, kwargs)
        self._calibrate(prepared)
        step = self.compiled_step(prepared, self.memory)
        if step is None:
            return self._surrogate(self.estimate(prepared.executor))
        self.memory = step.memory
        return step.differentiable_loss()

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """`loss`, with the gradient's estimate added to each parameter's ``grad``."""
        return torch_item(self.accumulate_gradients(self.prepare(model, guide, args, kwargs)).loss)

    @OldObjectsKept()
    @second_pass_explained()
    def accumulate_gradients(self, prepared: Prepared) -> Estimate:
        """One estimate, its gradient added to each parameter's ``grad``; baselines and critics learn from it."""
        self._calibrate(prepared)
        step = self.compiled_step(prepared, self.memory)
        # A program that is compiled does not run, and registers no parameter itself.
        register(prepared.trained, prepared.registered if step is None else frozenset())
        note_left_alone(prepared.left_alone)
        self._register_critics(prepared.executor)
        if step is not None:
            self.memory = step.memory
            step.accumulate()
            return Estimate(step.loss, step.loss, (), (), step.rewards)
        estimate = self.estimate(prepared.executor)
        if (loss := self._surrogate(estimate)).requires_grad:
            torch_backward(loss, retain_graph=self.retain_graph)
        return estimate

    def compiled_step(self, prepared: Prepared, memory: Mapping[str, Memory]) -> Step | None:
        """One compiled gradient, or None where it runs as it is: unasked for, or for want of a compiler."""
        return compiled_step(self, prepared, memory) if self.compile else None

    def compiled_replicates(
        self, prepared: Prepared, lanes: int, memory: Mapping[str, Memory]
    ) -> tuple[list[Tensor | None], Tensor] | None:
        """Many compiled gradients of the loss, by parameter, and the losses; or None, as `compiled_step`."""
        return compiled_replicates(self, prepared, lanes, memory) if self.compile else None

    def __call__(self, model: Any, guide: Any = None) -> ELBOModule:
        """Pyro's ``ELBOModule``: its forward is `differentiable_loss`, critics train along."""
        module = ELBOModule(model, guide, self)
        module.critics = torch.nn.ModuleList(self._assignment().modules())
        return module

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Pyro's hook for one pair of traces: the model's, the guide's."""
        return traces(self.prepare(model, guide, args, kwargs).executor)[::-1]

    def learned(self) -> dict[str, Any]:
        """What training has taught the objective, as plain containers: all that `relearn` needs."""
        memory = {site: dict(values) for site, values in self.memory.items()}
        return {"memory": memory, "since_calibration": self._since_calibration}

    def relearn(self, learned: Mapping[str, Any]) -> None:
        """Go on from `learned`."""
        self.memory, self._since_calibration = dict(learned["memory"]), learned["since_calibration"]

    def recalled(self, prepared: Prepared) -> dict[str, Memory]:
        """What the objective remembers; where it remembers nothing that a calibration gives, that of a new one."""
        return recalled(self, prepared)

    def _calibrate(self, prepared: Prepared) -> None:
        if self._since_calibration % EVERY == 0:
            self.memory |= recalibrated(self, prepared)
        self._since_calibration += 1

    def _surrogate(self, estimate: Estimate) -> Tensor:
        """A scalar to differentiate, with the critics' losses; the memory learns from it."""
        surrogate, self.memory = estimate.learned_from(self.memory)
        return estimate.loss.detach() + (surrogate - surrogate.detach())

    def _register_critics(self, executor: Executor) -> None:
        for i, module in enumerate(executor.setup.assignment.modules()):
            name = f"{type(self).__name__}.critic_{i}$$$"
            register({name + key: leaf for key, leaf in module.named_parameters() if leaf.requires_grad}, frozenset())

    def _assignment(self) -> Assignment:
        return Assignment(type(self).__name__, self.estimator, self.sites, self._reads_baselines)
