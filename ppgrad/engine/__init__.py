"""Runs a program over many lanes, and says which cost each draw is charged with.

Its rooms, from the ground up: ``program``, ``assignment``, ``dependence`` and ``elimination``; ``running`` upon them;
``checking`` and ``compiling`` upon that.
"""
