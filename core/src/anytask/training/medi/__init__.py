"""MEDI's training records: their types, their files, and the data card that describes them."""
