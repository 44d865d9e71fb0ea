"""The ``ppgrad`` command."""

from ppgrad.cli.app import main

__all__ = ["main"]
