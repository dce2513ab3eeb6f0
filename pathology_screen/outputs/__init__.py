"""What a screening run leaves behind."""
