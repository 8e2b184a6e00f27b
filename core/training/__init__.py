"""Training in every domain: tasks, data, optimiser, what is measured meanwhile, the report."""
