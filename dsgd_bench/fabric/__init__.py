"""How ranks meet: verbs, windows and what is built on them."""
