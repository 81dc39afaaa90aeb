"""What more than one notebook of the course needs; one module per noun. Importing has no effect."""
