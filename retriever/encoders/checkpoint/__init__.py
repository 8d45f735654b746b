"""What the files of a model say: located, checked and read, without computing anything.

`locate` finds a model's directory and `resolve` describes it: its identity, from `bi_encoder`
(module list, pooling, prompts, window) or `cross_encoder`, `json_files` and `weights`.
`architecture` and `tensors` read the network itself. Imports nothing of `forward/`.

A new family of transformers is described in `architecture.py`, a new module of
sentence-transformers in `modules.py`, and another kind of model, such as sparse or late-interaction
ones, gets a module beside `bi_encoder.py`.
"""
