"""What is run.

In: a model, perhaps a guide, and their arguments. Out: a `Program`, the modules and tensors that it can get at, its
parameters by name, and a key that tells whether it is still the program that something was learned of.
"""
