"""Sums over tokens: what calibration gathers of a block, and how it is gathered and kept."""
