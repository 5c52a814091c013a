"""A checkpoint with two small linears in place of one: running, training, measuring and saving it."""
