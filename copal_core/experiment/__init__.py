"""Runs from beginning to end: the main loop, evaluation, estimates, processes, clusters."""
