"""Image data: packaged sets, folders, and what is done to them on the way."""
