"""What the data modules beside it are made of; nobody else imports it."""
