"""Mining hard negatives for records: by a model's vectors, and by words."""
