"""A tiny BERT with random weights, made on the spot."""

import string

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tiny_tokenizer(words=()):
    """WordPiece over whole words, and any other ones letter by letter."""
    characters = string.ascii_lowercase + string.digits
    pieces = [*_SPECIAL, *words, *characters, *(f"##{character}" for character in characters)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def tiny_model(vocabulary_size, dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return BertModel(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=256,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=0.02,
        )
    ).eval()


def save_tiny_transformer(folder, words=(), dropout=0.0, seed=0):
    """Saves model and tokenizer to the folder, as `save_pretrained` does; returns the folder as a string."""
    tokenizer = tiny_tokenizer(words)
    tiny_model(len(tokenizer), dropout, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
