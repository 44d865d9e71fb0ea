"""The races, one program a file: each has ``races(quick)``."""
