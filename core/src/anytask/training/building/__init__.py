"""Building records from labelled texts, Super-NaturalInstructions tasks and pairs (arXiv 2212.09741, section 2.3)."""
