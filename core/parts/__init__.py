"""What mixers are made of: convolutions, heads, norms, filters, branches."""
