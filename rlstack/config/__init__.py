"""Settings: the schema, how they are read, and what is refused before anything starts."""
