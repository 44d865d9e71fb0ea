"""The options of the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Program = Annotated[str, typer.Argument(metavar="PATH[:NAME]", help="A file with problem(), or another NAME.")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the gradient once; it takes a while, and then each is faster.")
]
Device = Annotated[
    str | None, typer.Option(help="Where problem() makes its tensors: cpu, cuda, cuda:1, … Default: torch's own.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An argument of problem(), such as covariance=full."),
]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where in a program an error arose.")]
Estimators = Annotated[
    str | None,
    typer.Option(help="Comma-separated: score, score+loo, pathwise, … Default: all unbiased that can serve."),
]
Replicates = Annotated[int, typer.Option(help="Gradient estimates for each estimator, 2 or more.")]
Particles = Annotated[int, typer.Option(help="Samples averaged in one estimate, unless a word says @N.")]
Seed = Annotated[int, typer.Option(help="Of the draws; initial weights are those of problem().")]
Out = Annotated[Path | None, typer.Option(help="Folder for the results. Default: comparison/NAME.")]
Steps = Annotated[int | None, typer.Option(help="Steps of the optimizer, in all. Default: 1000.")]
Estimator = Annotated[
    str | None, typer.Option(help="score, score+loo, pathwise, … Default: pathwise where it can, else score.")
]
TrainParticles = Annotated[int | None, typer.Option(help="Samples averaged in one gradient. Default: 8.")]
Optimizer = Annotated[str | None, typer.Option(help="A name in torch.optim. Default: Adam.")]
LearningRate = Annotated[float | None, typer.Option(help="Default: the optimizer's own.")]
Schedule = Annotated[str | None, typer.Option(help="constant, linear or cosine.")]
MaxGradNorm = Annotated[float | None, typer.Option(help="Shorten longer gradients to it.")]
TrainSeed = Annotated[int | None, typer.Option(help="Of the initial weights and of all draws. Default: 0.")]
EvaluateEvery = Annotated[int | None, typer.Option(help="Steps between evaluations. Default: none.")]
EvaluationEpisodes = Annotated[int | None, typer.Option(help="Episodes of an evaluation. Default: 100.")]
EvaluationDeterministic = Annotated[
    bool, typer.Option("--evaluation-deterministic", help="Evaluate the policy's modes, not draws from it.")
]
TrainOut = Annotated[Path | None, typer.Option(help="Folder for the results. Default: training/NAME.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Default: checkpoint.pt in the results' folder.")]
CheckpointEvery = Annotated[int | None, typer.Option(help="Steps between checkpoints. Default: 100.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's events, too.")]
