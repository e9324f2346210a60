"""Plot files (PNG), drawn with matplotlib's object interface."""
