"""Intervals, paired tests, the front, its hypervolume and the racing rule; NumPy and SciPy alone."""
