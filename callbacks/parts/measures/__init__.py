"""What is computed of samples, nets and curves, before it is logged or drawn."""
