"""What the nets beside it are made of; nobody else imports it."""
