"""What is computed: the fast paths of both kinds of model, a transformer, and its runtimes.

`bi_encoder` and `cross_encoder` go from texts to vectors and logits: token ids (`pairs`), batches
(`batching`), the network (`transformer`) in one of the runtimes that `runtime` chooses (`numpy_`,
`openvino_` and `torch_runtime`), and what follows the network (`pooling`, `classification_head`).

Where to add what: a pooling mode in `POOLING_MODES` and `pool` of each runtime's `Operations`; a
layer after pooling in `pooling.py`; a runtime in a module of its own, chosen in `runtime.py`; an
architecture in `checkpoint/architecture.py`, and in `transformer.py` if it computes in another
order. A runtime is used only after its vectors were compared with NumPy's, a model only after they
were compared with sentence-transformers'.
"""
