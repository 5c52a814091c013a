"""Files that leave the product: reports, tables, bundles, masks and checkpoints."""
