"""Foundations of every other package: atomic files, paths, registries, sharing, queueing and torch settings."""
