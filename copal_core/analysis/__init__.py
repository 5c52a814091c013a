"""From records to answers: results, metrics, intervals, diagnosis, comparisons of layers."""
