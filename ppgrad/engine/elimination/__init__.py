"""Sums over many variables at once, by variable elimination.

In: factors, tensors whose dimensions have names. Out: for each set of factors that share a variable, one tensor with
all variables summed out. What contracts them is `pyro.ops.contract` with opt_einsum.
"""
