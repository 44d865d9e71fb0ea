"""The gradient of a program as one compiled function.

In: a function of tensors that runs a program. Out: the same, traced once, its noise drawn in one call beforehand.
"""
