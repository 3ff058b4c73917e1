"""How the samples of a validation or test reach a measurement, once each, in any number of processes."""
