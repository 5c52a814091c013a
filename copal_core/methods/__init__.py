"""How weights are removed or factorised: criteria, low rank, neurons, strategies, masks, stored sizes."""
