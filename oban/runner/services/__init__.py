"""The background services of a node, all with the same shape: a loop that calls `tick`."""
