"""Steering vectors in the files of other tools, one module for each; `read_vector` reads one vector of any of them.

A reader returns vectors without evidence, because such a file holds directions alone. What a tool calls a layer, and the site
that it is here, stands in its module. Every reader refuses a direction of another width, and a site that the model lacks.
"""

from interp_transfer.vectors.exchange.gguf import from_gguf, to_gguf
from interp_transfer.vectors.exchange.neuronpedia import from_neuronpedia, to_neuronpedia
from interp_transfer.vectors.exchange.npz import from_npz
from interp_transfer.vectors.exchange.pt import from_caa, from_pt
from interp_transfer.vectors.exchange.read import read_vector
from interp_transfer.vectors.exchange.saklas import from_saklas
from interp_transfer.vectors.exchange.steering_vectors import from_steering_vectors, to_steering_vectors
from interp_transfer.vectors.exchange.vllm_lens import to_vllm_lens

__all__ = [
    "from_caa",
    "from_gguf",
    "from_neuronpedia",
    "from_npz",
    "from_pt",
    "from_saklas",
    "from_steering_vectors",
    "read_vector",
    "to_gguf",
    "to_neuronpedia",
    "to_steering_vectors",
    "to_vllm_lens",
]
