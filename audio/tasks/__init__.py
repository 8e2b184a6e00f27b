"""What is learnt from sound."""
