"""Moving the trained weights into the engines."""
