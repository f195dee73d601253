"""The hook that keeps a sampler's state float32 while its network runs in another number format."""

import pytest
import torch

from realkit.models.precision import keep_state_float32, state_of


class Answer:
    def __init__(self, sample):
        self.sample = sample


class Network(torch.nn.Module):
    """Doubles its state, notes the formats that it is called in, and answers as diffusers' networks
    do."""

    dtype = torch.bfloat16

    def forward(
        self, sample, timestep, encoder_hidden_states=None, timestep_cond=None, return_dict=False
    ):
        self.seen = [
            sample.dtype,
            timestep.dtype,
            *(x.dtype for x in (encoder_hidden_states, timestep_cond) if x is not None),
        ]
        made = sample * 2
        return Answer(made) if return_dict else (made, "more")


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("return_dict", [False, True])
def test_a_network_sees_its_own_format_and_the_sampler_float32(by_name, return_dict):
    network = Network()
    keep_state_float32(network)
    state, words, time = torch.full((2, 4, 1, 1), 1.001), torch.ones(2, 3), torch.tensor(999.0)
    arguments = {"encoder_hidden_states": words, "timestep_cond": None, "return_dict": return_dict}
    answer = (
        network(sample=state, timestep=time, **arguments)
        if by_name
        else network(state, time, **arguments)
    )
    made = answer.sample if return_dict else answer[0]
    assert network.seen == [
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    ]  # a timestep is no state: 999 would round to 1000
    assert made.dtype == torch.float32 and torch.equal(made, state.to(torch.bfloat16).float() * 2)
    assert state.dtype == torch.float32 and (return_dict or answer[1] == "more")


def test_the_state_is_the_first_argument_or_named_as_diffusers_names_it():
    state = torch.zeros(1)
    assert (
        state_of((state, 1), {})
        is state_of((), {"sample": state})
        is state_of((), {"hidden_states": state, "timestep": 1})
        is state
    )
