"""open_clip builds a model with the activation that its weights were trained with."""

import open_clip
import pytest

import realkit as rk
from realkit.scorers.clip import Encoders
from realkit.scorers.table import SCORERS


def test_each_entry_of_the_catalogue_is_built_as_its_weights_were_trained():
    sources = {entry.source for entry in SCORERS.values() if entry.engine.startswith("open_clip")}
    for source in sorted(source for source in sources if not source.startswith("package:")):
        model, _, weights = source.partition(":")
        built = open_clip.get_model_config(model)
        trained = open_clip.get_pretrained_cfg(model, weights)
        assert built and trained, source
        assert built.get("quick_gelu", False) == trained.get("quick_gelu", False), source


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("ViT-B-32:laion400m_e31", "ViT-B-32-quickgelu:laion400m_e31"),
        ("ViT-B-16:dfn2b", "ViT-B-16-quickgelu:dfn2b"),
    ],
)
def test_weights_of_another_activation_are_refused_before_they_are_fetched(source, write):
    with pytest.raises(rk.RequestError, match=f"'{source}', whose weights.*: write {write}"):
        Encoders("mine", source, None)
