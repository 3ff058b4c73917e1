"""What the nets and what looks at them are made of; nobody outside `nets/` imports it."""
