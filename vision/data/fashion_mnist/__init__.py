"""A balanced part of Fashion-MNIST: 10,000 images to train on and 2,000 to test."""
