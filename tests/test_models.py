import math
import re
import sys

import pytest
import torch
from torch import nn

from einthoven.errors import ConfigError
from einthoven.models.costs import count_flops, count_parameters
from einthoven.models.crnn import recurrence_as_loop
from einthoven.models.registry import MODELS, build_model

# torch.export takes a length that can become 1 for another program than all others; these halve
# it four or five times.
SHORTEST_EXPORT = {
    "resnet1d_views": 17,
    "xresnet1d50": 33,
    "xresnet1d101": 33,
    "se_resnet1d": 17,
}


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def docstring_of(name):
    return sys.modules[MODELS[name].__module__].__doc__


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("n_leads", "n_samples"), [(12, 1000), (12, 250), (1, 333), (3, 5000), (12, 16)]
)
def test_model_maps_leads_and_samples_to_one_logit_per_class(name, n_leads, n_samples):
    model = build_model(name, n_leads=n_leads, n_classes=5).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, n_leads, n_samples)).shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    model = build_model(name, n_leads=12, n_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            # A branch that starts at zero passes no gradient on before the first step.
            parameter.add_(0.01 * torch.randn_like(parameter))
    model(torch.randn(4, 12, 250)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_a_record_does_not_see_the_others_of_its_batch(name):
    model = build_model(name, n_leads=12, n_classes=3).eval()
    x = torch.randn(4, 12, 250)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_one_model_and_one_training_step(name):
    x = torch.randn(4, 12, 250)

    def weights_and_logits():
        torch.manual_seed(3)
        model = build_model(name, n_leads=12, n_classes=3)
        return [*model.state_dict().values(), model(x)]

    first, second = weights_and_logits(), weights_and_logits()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n_present", [0, 1, 6])
def test_missing_leads_do_no_harm(name, n_present):
    model = build_model(name, n_leads=12, n_classes=3)
    x = torch.randn(4, 12, 250)
    x[:, n_present:] = 0
    logits = model(x)
    logits.square().sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_reduced_precision_gives_nearly_the_same_logits_and_finite_gradients(name):
    model = build_model(name, n_leads=12, n_classes=3)
    x = torch.randn(4, 12, 250)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        reduced = model(x)
    torch.testing.assert_close(reduced.float(), model(x), rtol=0.1, atol=0.1)
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    logits.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# Of torch's own loop over a recurrent layer.
@pytest.mark.filterwarnings("ignore:_check_is_size:FutureWarning")
@pytest.mark.parametrize("name", MODELS)
def test_model_can_be_exported_for_any_batch_and_length(name):
    model = build_model(name, n_leads=12, n_classes=3).eval()
    shortest = SHORTEST_EXPORT.get(name, 16)
    sample = torch.export.Dim("sample", min=shortest, max=5000)
    sizes = {0: torch.export.Dim("batch", max=64), 2: sample}
    with recurrence_as_loop():
        exported = torch.export.export(model, (torch.randn(2, 12, 256),), dynamic_shapes=(sizes,))
    run = exported.module()
    for shape in ((3, 12, 512), (1, 12, shortest), (2, 12, 333)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_models_cite_their_paper_and_state_their_cost(name):
    model = build_model(name, n_leads=12, n_classes=5)
    parameters, megaflops = count_parameters(model), count_flops(model, 12, 250) / 1e6
    cost = f"`{name}`: {parameters:,} parameters, {megaflops:.1f} MFLOPs"
    assert f"{cost} (12 leads, 250 samples, 5 classes)." in docstring_of(name)
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", docstring_of(name))


def test_unknown_model_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean resnet1d_wang"):
        build_model("resnet1d_wong", n_leads=12, n_classes=2)


class Layer(nn.Module):
    """One layer behind the input that models take, ``(B, L, S)``."""

    def __init__(self, compute, *layers):
        super().__init__()
        self.layers = nn.ModuleList([*layers, nn.Linear(1, 1)])
        self.compute = compute

    def forward(self, x):
        return self.compute(x, *self.layers)


def test_flops_of_a_recurrent_layer_are_those_of_its_matrices_at_every_step():
    layer = Layer(lambda x, gru, _: gru(x.mT), nn.GRU(12, 8, batch_first=True, bidirectional=True))
    assert count_flops(layer, 12, 50) == 2 * 50 * 2 * 3 * 8 * (12 + 8)


def test_flops_of_attention_are_those_of_scores_and_sums():
    attention = nn.functional.scaled_dot_product_attention
    layer = Layer(lambda x, _: attention(x.mT[:, None], x.mT[:, None], x.mT[:, None]))
    assert count_flops(layer, 16, 50) == 2 * 2 * 50 * 50 * 16


def test_flops_of_a_fourier_transform_are_those_of_real_numbers():
    layer = Layer(lambda x, _: torch.fft.irfft(torch.fft.rfft(x, n=512), n=512))
    assert count_flops(layer, 12, 250) == 2 * 12 * 2.5 * 512 * math.log2(512)


@pytest.mark.parametrize("model", [nn.Conv1d(12, 4, 3), nn.Conv1d(12, 4, 3).eval()])
def test_counting_leaves_the_model_in_its_mode(model):
    was_training = model.training
    count_flops(model, 12, 250)
    assert model.training == was_training
