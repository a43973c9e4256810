"""What looks at the machine. Nothing is judged here."""
