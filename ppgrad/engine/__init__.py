"""Runs a program over many lanes, and says which cost each draw is charged with.

Its rooms, from the ground up: ``program``, ``assignment`` and ``dependence``; ``running`` upon them; ``checking`` and
``compiling`` upon that.
"""
