"""What a type checker has to find: one mistake on each line that says so."""

from __future__ import annotations

import ppgrad


def program() -> None: ...


def main() -> None:
    ppgrad.ScoreFuntion()  # mistake
    ppgrad.ScoreFunction(baseline=3)  # mistake
    ppgrad.ExpectedReturn(ppgrad.LeaveOneOut())  # mistake
    ppgrad.ExpectedReturn(discount="a word")  # mistake
    ppgrad.gradient(ppgrad.ExpectedReturn(), program, seed="a word")  # mistake
    _ = ppgrad.gradient(ppgrad.ExpectedReturn(), program, seed=0).mean  # mistake
    ppgrad.reward("r", "a word")  # mistake
