"""What is called by name: classes, and the options of a dream in a config."""
