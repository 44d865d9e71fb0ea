"""``python -m ppgrad.cli``, for a checkout without the installed command."""

from ppgrad.cli.app import main

main()
