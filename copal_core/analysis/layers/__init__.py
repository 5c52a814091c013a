"""Masks against low rank at the same stored size: one layer without a forward pass, and the whole model."""
