"""Files of long work: written whole, read as streams, gone on with after a kill."""
