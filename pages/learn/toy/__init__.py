"""The lesson's toy layer in numpy: the product's own formulas on numbers that fit a picture."""
