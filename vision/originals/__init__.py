"""One file a family: the original's constructor arguments and weights as ours."""
