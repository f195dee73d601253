"""Tensors that remember what they are made of."""

import torch

from realkit.models.tracing import traced_tensors


def test_a_tensor_remembers_what_it_is_made_of():
    traced = traced_tensors({"a": (4, 2), "b": (4, 2)})
    shift, scale = traced["a"].chunk(2, dim=0)
    assert torch.cat([scale, traced["b"].T.contiguous().T, shift]).sources == {"a", "b"}
    assert traced["a"][:2, :].clone().detach().sources == {"a"}
    assert shift.sources == {"a"} and shift.shape == (2, 2)
