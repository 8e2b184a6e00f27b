"""What the domains share: mixers, blocks, stacks, norms, training, checkpoints."""
