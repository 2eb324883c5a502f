"""What the tests of several folders share, in one module per topic."""
