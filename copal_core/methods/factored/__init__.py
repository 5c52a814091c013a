"""A checkpoint with two small linears in place of one: its modules, their training, and files."""
