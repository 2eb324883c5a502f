"""The applications of `examples/`, started as a reader would start them."""
