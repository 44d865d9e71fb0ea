"""Which cost can depend on which draw.

In: the sites of one execution in program order, with their costs. Out: for each random site the sum of the costs that
it is charged with, one tensor for each set of plates whose slices do not influence one another.
"""
