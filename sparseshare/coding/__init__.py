"""Codes for a fixed dictionary: the problem, its solvers, tiles and threads."""
