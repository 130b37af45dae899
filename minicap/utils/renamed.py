"""Options that were renamed or removed: to read old files and to answer old command lines."""

RENAMED = {
    # architecture
    "hidden": "hidden_size",
    "embedding": "embedding_size",
    "photo": "image_input",
    # training
    "sampling": "sample_by",
    "warm_up": "warmup_epochs",
    "dropout_words": "embedding_dropout",
    "max_len": "max_length",
    "word_range": "embedding_range",
    "photo_gain": "image_gain",
    "log_frequencies": "frequency_bias",
    "choose": "monitor",
    "self_critical": "self_critical_epochs",
    "self_critical_rate": "self_critical_learning_rate",
    "samples": "samples_per_image",
    "temperature": "self_critical_temperature",  # of training; generation's keeps its name
    "reward_bleu": "bleu_reward",
    "threads": "workers",
    # generation
    "beams": "beam_size",
    "alpha": "length_penalty",
    "block_ngrams": "no_repeat_ngram_size",
    "beginning": "prefix",
}
# Removed options, with the value that meant "off".
REMOVED = {
    "layers": 1,
    "maxout": False,
    "tie": False,
    "label_smoothing": 0.0,
    "scheduled_sampling": 0.0,
    "average": 1,
}


def option(name: str) -> str:
    """Return a field's name as an option of the command line: --beam-size for beam_size."""
    return "--" + name.replace("_", "-")


# Options added since the first version: the value that files without them were made with.
ADDED: dict[str, object] = {
    "strict": False,
    "tokenizer": "course",
    "init_from": None,
    "attention_size": 256,
    "positions": 1,
    "image_dropout": None,
}
