import pytest
import torch

from einthoven.errors import ConfigError
from einthoven.models.registry import MODELS, build_model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n_leads", "n_samples"), [(12, 1000), (12, 250), (1, 333), (3, 5000)])
def test_model_maps_leads_and_samples_to_one_logit_per_class(name, n_leads, n_samples):
    model = build_model(name, n_leads=n_leads, n_classes=5).eval()
    assert model(torch.zeros(2, n_leads, n_samples)).shape == (2, 5)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient(name):
    model = build_model(name, n_leads=12, n_classes=3)
    model(torch.randn(4, 12, 250)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_a_record_does_not_see_the_others_of_its_batch(name):
    model = build_model(name, n_leads=12, n_classes=3).eval()
    x = torch.randn(4, 12, 250)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_one_model(name):
    def weights():
        torch.manual_seed(3)
        return build_model(name, n_leads=12, n_classes=3).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", MODELS)
def test_missing_leads_do_no_harm(name):
    model = build_model(name, n_leads=12, n_classes=3).eval()
    x = torch.randn(2, 12, 250)
    x[:, 1:] = 0
    assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize("name", MODELS)
def test_model_can_be_exported_for_any_batch_and_length(name):
    model = build_model(name, n_leads=12, n_classes=3).eval()
    sizes = {0: torch.export.Dim("batch", max=64), 2: torch.export.Dim("sample", min=16, max=5000)}
    exported = torch.export.export(model, (torch.randn(2, 12, 256),), dynamic_shapes=(sizes,))
    x = torch.randn(3, 12, 512)
    torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_unknown_model_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean resnet1d_wang"):
        build_model("resnet1d_wong", n_leads=12, n_classes=2)
