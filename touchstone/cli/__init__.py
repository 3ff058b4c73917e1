"""What `train.py` is made of: the command line, its errors in words, the progress bar and the final table."""
