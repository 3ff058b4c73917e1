"""What the files beside it are made of."""
