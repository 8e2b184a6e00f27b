"""Looking inside a trained model: what its layers read and remember, what its answers rest on."""
