"""What the pages share: state in the URL, forms, the run that is looked at, figures with their tables."""
