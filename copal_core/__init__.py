"""COPAL Explorer: continual pruning of language models, its baselines, and their measurement."""
