"""Text to vectors: the protocol of an encoder, models by name, and the package's own encoder.

Owns everything about a model except the vectors it gives. Must not know documents, chunks, indexes
or storage. Importing it imports none of torch, transformers and sentence-transformers.
"""

from retriever.encoders.bi_encoder import BiEncoder, load_encoder
from retriever.encoders.canaries import CANARIES, check_canaries, encode_canaries
from retriever.encoders.models import ModelDescription, check_identity, resolve_model
from retriever.encoders.protocol import Encoder, Tokenizer, Tokens
from retriever.encoders.tokenization import HuggingFaceTokenizer

__all__ = [
    "CANARIES",
    "BiEncoder",
    "Encoder",
    "HuggingFaceTokenizer",
    "ModelDescription",
    "Tokenizer",
    "Tokens",
    "check_canaries",
    "check_identity",
    "encode_canaries",
    "load_encoder",
    "resolve_model",
]
