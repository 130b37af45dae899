"""From files to batches: captions, vocabularies, splits, feature stores and drawn scenes."""
