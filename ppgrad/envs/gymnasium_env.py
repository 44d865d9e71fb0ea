"""Any environment of Gymnasium, played by a Pyro program."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ppgrad.core import InvalidInput
from ppgrad.envs.environment import Play, Step
from ppgrad.envs.spaces import ActionSpace, Box, Discrete

AutoresetMode = Literal["next_step", "same_step", "disabled"]


class GymnasiumEnv:
    """A Gymnasium environment by its id; one copy of it for each episode of a rollout.

    Every run of a rollout resets all copies with a seed that it draws from torch's generator: one seed
    of the program, one rollout. Each copy plays one episode; what an automatic reset brings after the
    episode's end is masked. Real-valued actions are clipped to the action space on their way to the
    environment, and the policy site keeps the action as drawn.

    The environment is NumPy: nothing of it is differentiable, so that the score function is the default and
    `Pathwise` is refused; and vmap cannot carry it, so that particles and replicates run in a loop. Put
    episodes in the plate instead. A run stops when all episodes are over.

    Args:
        id: as for ``gymnasium.make``.
        vectorization_mode: as for ``gymnasium.make_vec``; None for the environment's own.
        autoreset_mode: ``"next_step"``, ``"same_step"`` or ``"disabled"``; None for the environment's own. It
            makes no difference to an episode.
        device: where observations and rewards are put; None for torch's default. Gymnasium itself plays on the
            host, so that actions are copied there in every step.
        kwargs: further keywords of the environment.

    Raises:
        InvalidInput: Gymnasium is not installed, there is no such id, or its spaces are of another kind.

    Source: Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
    """

    differentiable: ClassVar[bool] = False

    def __init__(
        self,
        id: str,
        *,
        vectorization_mode: str | None = None,
        autoreset_mode: AutoresetMode | None = None,
        device: torch.device | str | None = None,
        **kwargs: Any,
    ):
        if not isinstance(id, str):
            raise InvalidInput(f"GymnasiumEnv({id!r}): write the id of an environment, such as 'CartPole-v1'.")
        self.name = id
        self._device = device
        self._gymnasium = _gymnasium()
        self._options: dict[str, Any] = {"vectorization_mode": vectorization_mode, **kwargs}
        if autoreset_mode is not None:
            self._options["vector_kwargs"] = {"autoreset_mode": self._autoreset_mode(autoreset_mode)}
            if vectorization_mode is None:
                self._options["vectorization_mode"] = "sync"
        self._vectors: dict[int, Any] = {}
        try:
            self._gymnasium.spec(id)
        except (self._gymnasium.error.Error, ImportError) as error:
            raise InvalidInput(
                f"Gymnasium has no environment {id!r}: {_first_line(error)} Write an id of gymnasium.registry."
            ) from error

    @property
    def action_space(self) -> ActionSpace:
        """What actions the environment takes."""
        vector = next(iter(self._vectors.values())) if self._vectors else self.vector(1)
        return _space(self.name, vector.single_action_space)

    def vector(self, episodes: int) -> Any:
        """The ``gymnasium.vector.VectorEnv`` of that many copies; made once, until `close`.

        Raises:
            InvalidInput: Gymnasium cannot make it.
        """
        if episodes not in self._vectors:
            try:
                vector = self._gymnasium.make_vec(self.name, num_envs=episodes, **self._options)
            except (self._gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
                raise InvalidInput(f"Gymnasium cannot make {self.name!r}: {_first_line(error)}") from error
            self._vectors[episodes] = vector
            _space(self.name, vector.single_action_space)
        return self._vectors[episodes]

    def play(self, episodes: int) -> Play:
        """Begin episodes; inside of a program, in the plate of the episodes."""
        return _Played(self.vector(episodes), self.action_space, self._device)

    def close(self) -> None:
        """Close every copy; a later rollout makes new ones."""
        while self._vectors:
            self._vectors.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        options = [f"{key}={value!r}" for key, value in self._options.items() if value is not None]
        return f"GymnasiumEnv({', '.join([repr(self.name), *options])})"

    def _autoreset_mode(self, name: str) -> Any:
        modes = {mode.name.lower(): mode for mode in self._gymnasium.vector.AutoresetMode}
        if name not in modes:
            raise InvalidInput(f"GymnasiumEnv(autoreset_mode={name!r}): write one of {', '.join(modes)}, or None.")
        return modes[name]


class _Played:
    """Episodes of a `GymnasiumEnv`, one for each copy."""

    stops_early = True

    def __init__(self, vector: Any, space: ActionSpace, device: torch.device | str | None):
        self._vector, self._space, self._device = vector, space, device
        try:
            seed = int(torch.randint(2**31 - 1, (), device="cpu"))
        except RuntimeError as error:
            raise RuntimeError("Gymnasium plays in NumPy, which knows nothing of vmap's lanes") from error
        self.observation = _tensors(vector.reset(seed=seed)[0], device)
        self._ended = np.zeros(vector.num_envs, dtype=bool)

    def step(self, time: int, action: Tensor, alive: Tensor) -> Step:
        if self._ended.any() and _name_of_mode(self._vector) == "DISABLED":
            self._vector.reset(options={"reset_mask": self._ended})
        observation, reward, terminated, truncated, info = self._vector.step(self._numpy(action))
        self._ended = terminated | truncated
        self.observation = _tensors(_before_reset(observation, info, self._ended), self._device)
        return Step(
            torch.as_tensor(reward, dtype=torch.get_default_dtype(), device=self._device),
            torch.as_tensor(terminated, device=self._device),
            torch.as_tensor(truncated, device=self._device),
        )

    def final_reward(self) -> None:
        return None

    def _numpy(self, action: Tensor) -> np.ndarray:
        space = self._vector.single_action_space
        array = action.numpy(force=True)
        if isinstance(self._space, Box):
            array = np.clip(array, space.low, space.high)
        return (array + getattr(space, "start", 0)).astype(space.dtype)


def _name_of_mode(vector: Any) -> str:
    return getattr(vector.metadata.get("autoreset_mode"), "name", "")


def _before_reset(observation: Any, info: dict[str, Any], ended: np.ndarray) -> Any:
    """The last observation of an episode that was reset in the step that ended it."""
    if "final_obs" not in info:
        return observation

    def replaced(batch: np.ndarray, index: int, last: Any) -> np.ndarray:
        batch = np.array(batch)
        batch[index] = last
        return batch

    for index in np.flatnonzero(ended & info["_final_obs"]):
        last = info["final_obs"][index]
        observation = tree_map(lambda batch, own, i=index: replaced(batch, i, own), observation, last)
    return observation


def _tensors(observation: Any, device: torch.device | str | None) -> Any:
    """Torch tensors of an observation: real numbers in the default type, integers as they are."""

    def tensor(array: Any) -> Tensor:
        if np.issubdtype(np.asarray(array).dtype, np.floating):
            return torch.as_tensor(array, dtype=torch.get_default_dtype(), device=device)
        return torch.as_tensor(array, device=device)

    return tree_map(tensor, observation)


def _space(name: str, space: Any) -> ActionSpace:
    """A Gymnasium action space in the words of this room."""
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n))
    if kind == "MultiDiscrete" and space.nvec.ndim == 1:
        return Discrete(tuple(map(int, space.nvec)))
    if kind == "MultiBinary" and len(space.shape) == 1:
        return Discrete((2,) * space.shape[0])
    if kind == "Box" and np.issubdtype(space.dtype, np.floating):
        return Box(tuple(space.shape), _bound(space.low), _bound(space.high))
    raise InvalidInput(
        f"The actions of {name!r} are {space}; GymnasiumEnv takes Discrete, MultiDiscrete, MultiBinary and Box of "
        "real numbers. Wrap the environment."
    )


def _bound(numbers: np.ndarray) -> float | tuple[float, ...]:
    """One number where all are the same."""
    each = tuple(map(float, numbers.reshape(-1)))
    return each[0] if len(set(each)) == 1 else each


def _gymnasium() -> ModuleType:
    try:
        import gymnasium
    except ImportError as error:
        raise InvalidInput("GymnasiumEnv needs Gymnasium. Write: pip install 'ppgrad[envs]'.") from error
    return gymnasium


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".?") + "." if str(error).strip() else f"{type(error).__name__}."
