"""Whether a program is valid for the estimators that were chosen.

In: an `Executor` that has not run yet. Out: the same with what one ordinary, validated run has shown, or an error or a
warning that names the site: its shapes and numbers, its gradient paths, the places where its cost jumps.
"""
