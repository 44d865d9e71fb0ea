"""Environments: batched and differentiable in torch, Gymnasium's, and programs that play them."""

from ppgrad.envs.ball_with_wall import BallWithWall
from ppgrad.envs.cart_pole import CartPole
from ppgrad.envs.environment import Environment, Play, Step
from ppgrad.envs.gymnasium_env import GymnasiumEnv
from ppgrad.envs.linear_quadratic import LinearQuadratic
from ppgrad.envs.mountain_car_continuous import MountainCarContinuous
from ppgrad.envs.pendulum import Pendulum
from ppgrad.envs.rollout import Episodes, rollout
from ppgrad.envs.spaces import ActionSpace, Box, Discrete

__all__ = [
    "ActionSpace",
    "BallWithWall",
    "Box",
    "CartPole",
    "Discrete",
    "Environment",
    "Episodes",
    "GymnasiumEnv",
    "LinearQuadratic",
    "MountainCarContinuous",
    "Pendulum",
    "Play",
    "Step",
    "rollout",
]
