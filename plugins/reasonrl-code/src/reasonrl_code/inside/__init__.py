"""What runs beside or inside the sandbox: the standard library alone, and nothing of reasonrl."""
