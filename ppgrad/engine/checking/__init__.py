"""Whether a program is valid for the estimators that were chosen.

In: an `Executor` that has not run yet. Out: the same, its `Knowledge` filled in by one ordinary, validated run, or an
error or a warning that names the site: its shapes and numbers, its gradient paths, the places where its cost jumps.
"""
