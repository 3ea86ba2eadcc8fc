import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg.inference.decode import Decoder

seeds = st.integers(0, 10**6)


def logits_of(seed, channels):
    return torch.randn(channels, 5, 7, generator=torch.Generator().manual_seed(seed)) * 2


@given(seeds, st.integers(1, 4))
def test_sigmoid_takes_the_largest_channel_of_at_least_a_half(seed, channels):
    logits = logits_of(seed, channels)
    decoder = Decoder("sigmoid")
    classes = decoder.classes(logits).numpy()
    p = decoder.probabilities(logits).numpy()
    for where in np.ndindex(5, 7):
        sure = [(p[k][where], -k) for k in range(channels) if p[k][where] >= 0.5]
        assert classes[where] == (1 - max(sure)[1] if sure else 0)


@given(seeds, st.integers(2, 5))
def test_softmax_takes_the_largest(seed, channels):
    logits = logits_of(seed, channels)
    decoder = Decoder("softmax")
    assert torch.allclose(decoder.probabilities(logits).sum(0), torch.ones(5, 7))
    assert (decoder.classes(logits) == logits.argmax(0)).all()


@given(seeds, st.sampled_from([("sigmoid", 1), ("sigmoid", 3), ("softmax", 2)]))
def test_probabilities_decide_as_logits_do(seed, kind):
    activation, channels = kind
    logits, decoder = logits_of(seed, channels).double(), Decoder(activation)
    assert (decoder.classes_of_probabilities(decoder.probabilities(logits)) == decoder.classes(logits)).all()
