"""The engine: a program, its lanes, its record, its credit."""
