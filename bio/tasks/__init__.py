"""Tasks on DNA: pretraining and classification."""
