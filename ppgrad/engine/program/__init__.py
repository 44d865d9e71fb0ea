"""The program: the model, the guide and their arguments.

In: a model, perhaps a guide, and their arguments. Out: a `Program`, the modules and tensors that it can get at, its
parameters by name, and a key that tells whether what is known of a program still holds for it.
"""
