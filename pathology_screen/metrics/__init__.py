"""How good detection, localisation and reconstruction are, and how sure one can be of it."""
