"""What `cold.py` compares with: a question through sentence-transformers and FAISS, and no more."""

import json
import sys
from pathlib import Path

import faiss
from sentence_transformers import SentenceTransformer

folder, model, question = sys.argv[1:]
encoder = SentenceTransformer(model, device="cpu")
index = faiss.read_index(str(Path(folder) / "vectors.faiss"))
sentences = json.loads((Path(folder) / "sentences.json").read_text())
vectors = encoder.encode([question], normalize_embeddings=True)
scores, rows = index.search(vectors, 10)
for score, row in zip(scores[0], rows[0], strict=True):
    print(f"{score:.3f} s{row} {sentences[row]}")
