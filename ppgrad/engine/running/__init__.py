"""One execution of a program, all lanes at once.

In: a `Program`, an `Assignment` and an objective's cost of each site. Out: `Record` objects, of each site its draw,
its cost, and the costs of its alternatives, which are other values at that site. A lane is one element of the batch of
particles × grid points × replicates; lanes run under ``torch.func.vmap`` where the program allows it, in a loop
elsewhere.
"""
