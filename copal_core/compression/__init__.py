"""One step of one method: from statistics to masks, factors or removed neurons, block by block."""
