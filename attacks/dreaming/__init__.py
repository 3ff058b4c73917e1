"""What `dream` is made of: one idea a file."""
