"""What vision models are trained to do."""
