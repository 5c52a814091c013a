"""Additive sums over tokens that a calibration pass gathers, by hooks, one block at a time."""
