"""Cuts texts with the splitters of other packages. Run by the interpreter that has them.

    PYTHON splitters.py < request > answer

The request is a JSON object: `splitter`, a key of `SPLITTERS`; its `options`; `tokenizer`, the
file of the encoder's tokenizer; and `texts`. The answer has, for each text, `chunks`: pairs of a
chunk's text and its first character, null where the splitter does not say; and `seconds`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Chunk = tuple[str, int | None]
Split = Callable[[str], list[Chunk]]


def tokenizer(path: str):
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(path)
    found.no_truncation()
    found.no_padding()
    return found


def langchain(path: str, options: dict) -> Split:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    options = {"add_start_index": True, **options}
    if options.pop("length", "characters") == "tokens":
        counter = tokenizer(path)
        options["length_function"] = lambda t: len(counter.encode(t, add_special_tokens=False))
    splitter = RecursiveCharacterTextSplitter(**options)
    return lambda text: [
        (one.page_content, one.metadata["start_index"]) for one in splitter.create_documents([text])
    ]


def haystack(_: str, options: dict) -> Split:
    from haystack.components.preprocessors import DocumentSplitter

    return _haystack(DocumentSplitter(**options))


def haystack_recursive(_: str, options: dict) -> Split:
    from haystack.components.preprocessors import RecursiveDocumentSplitter

    return _haystack(RecursiveDocumentSplitter(**options))


def _haystack(splitter) -> Split:
    from haystack import Document

    splitter.warm_up()

    def split(text: str) -> list[Chunk]:
        found = splitter.run(documents=[Document(content=text)])["documents"]
        return [(one.content, one.meta.get("split_idx_start")) for one in found]

    return split


def llama_index(path: str, options: dict) -> Split:
    from llama_index.core import Document
    from llama_index.core.node_parser import SentenceSplitter

    if options.pop("length", "") == "tokens":
        counter = tokenizer(path)
        options["tokenizer"] = lambda t: counter.encode(t, add_special_tokens=False).ids
    splitter = SentenceSplitter(**options)

    def split(text: str) -> list[Chunk]:
        found = splitter.get_nodes_from_documents([Document(text=text)])
        return [(one.text, one.start_char_idx) for one in found]

    return split


def _chonkie(kind: str) -> Callable[[str, dict], Split]:
    def make(path: str, options: dict) -> Split:
        import chonkie

        if options.pop("length", "") == "tokens":
            options["tokenizer"] = tokenizer(path)
        chunker = getattr(chonkie, kind)(**options)
        return lambda text: [(one.text, one.start_index) for one in chunker.chunk(text)]

    return make


def _semantic(kind: str) -> Callable[[str, dict], Split]:
    def make(path: str, options: dict) -> Split:
        import semantic_text_splitter

        made = getattr(semantic_text_splitter, kind)
        if options.pop("length", "") == "tokens":
            splitter = made.from_huggingface_tokenizer_str(tokenizer(path).to_str(), **options)
        else:
            splitter = made(**options)
        return lambda text: [(chunk, start) for start, chunk in splitter.chunk_indices(text)]

    return make


SPLITTERS: dict[str, Callable[[str, dict], Split]] = {
    "langchain": langchain,
    "haystack": haystack,
    "haystack recursive": haystack_recursive,
    "llama-index": llama_index,
    "chonkie token": _chonkie("TokenChunker"),
    "chonkie sentence": _chonkie("SentenceChunker"),
    "chonkie recursive": _chonkie("RecursiveChunker"),
    "semantic-text-splitter": _semantic("TextSplitter"),
    "semantic-text-splitter markdown": _semantic("MarkdownSplitter"),
}


def _use_packaged_nltk_data() -> None:
    """Let NLTK find the sentence tokenizer that LlamaIndex brings, so that none is downloaded."""
    import importlib.util

    if (found := importlib.util.find_spec("llama_index.core")) and found.origin:
        os.environ["NLTK_DATA"] = str(Path(found.origin).parent / "_static" / "nltk_cache")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    request = json.load(sys.stdin)
    _use_packaged_nltk_data()
    split = SPLITTERS[request["splitter"]](request["tokenizer"], request["options"])
    split("A text that is not measured. It loads what is loaded at the first call.")
    began = time.monotonic()
    chunks = [split(text) for text in request["texts"]]
    json.dump({"chunks": chunks, "seconds": time.monotonic() - began}, answers)
    answers.close()


if __name__ == "__main__":
    main()
