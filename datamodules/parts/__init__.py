"""What the data modules beside it are made of."""
