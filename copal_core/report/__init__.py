"""What leaves the product: a report to read, tables, masks, and a bundle from which a run is repeated."""
