"""Data larger than memory: reading them, and what a fit keeps of their rows in files."""
