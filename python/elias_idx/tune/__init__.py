"""Choosing what a model searches with: how good, how fast and how large it is with each setting, on labelled texts."""

from elias_idx.tune.choice import cheapest, pareto_front
from elias_idx.tune.measure import Grid, Measured, Setting, Sweep, sweep

__all__ = ["Grid", "Measured", "Setting", "Sweep", "cheapest", "pareto_front", "sweep"]
