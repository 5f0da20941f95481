"""What plugins and core exchange. Everything here but ``batch`` is torch-free."""
