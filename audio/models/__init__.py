"""Models of clips: front ends that make tokens, and a classifier over any mixer."""
