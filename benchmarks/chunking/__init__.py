"""How documents are best cut: what each way of chunking finds, and what its index costs."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = "all-MiniLM-L6-v2"
