"""A device that every machine has, in place of a CUDA device that few have."""
