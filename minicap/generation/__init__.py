"""Caption generation: beam search, greedy decoding and sampling."""
