"""Models for other runtimes: the network alone, checked against the one that it was made of."""
