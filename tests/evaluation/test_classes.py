"""Names of classes and what they mean to a model."""

from __future__ import annotations

import unicodedata

import pytest

from vit_deploy.errors import HostileInput
from vit_deploy.evaluation.classes import imagenet_synsets, match_classes

ANIMALS = ("cat, house cat", "Grey Wolf", "crane", "crane", "Bär")


def test_labels_are_met_exactly_in_other_letters_and_by_a_synonym():
    apart = unicodedata.normalize("NFD", "Bär")
    mapping = match_classes(["house_cat", "grey_wolf", apart], ANIMALS, 5)
    assert mapping.how == "labels"
    assert mapping.indices == {"house_cat": 0, "grey_wolf": 1, apart: 4}


def test_a_label_that_two_classes_have_means_neither():
    with pytest.raises(HostileInput, match=r"1 of the data's 2 classes are none of the model's: 'crane'"):
        match_classes(["Bär", "crane"], ANIMALS, 5)


def test_labels_come_before_indices_where_both_would_do():
    assert match_classes(["0", "1"], ("1", "0"), 2).indices == {"0": 1, "1": 0}
    assert match_classes(["0", "1"], ("1", "0"), 2, "indices").indices == {"0": 0, "1": 1}


@pytest.mark.parametrize("name", ["5", "-1", "1.0", "²", "1e0"])
def test_an_index_is_a_number_of_a_class(name: str):
    with pytest.raises(HostileInput, match="1 of the data's 2 classes"):
        match_classes(["0", name], (), 5)


def test_wordnet_ids_are_those_of_imagenet_and_of_no_other_model():
    synsets = imagenet_synsets()
    assert len(set(synsets)) == 1000
    assert synsets == sorted(synsets)
    mapping = match_classes(["n01440764", "n15075141"], (), 1000)
    assert (mapping.how, mapping.indices) == ("wordnet", {"n01440764": 0, "n15075141": 999})
    with pytest.raises(HostileInput):
        match_classes(["n01440764"], [f"thing {place}" for place in range(1000)], 1000)
    with pytest.raises(HostileInput):
        match_classes(["n01440764"], (), 999)


def test_ids_that_are_the_labels_mean_what_the_model_says():
    assert match_classes(["n01440764"], ("n15075141", "n01440764"), 2).indices == {"n01440764": 1}


def test_the_order_of_names_is_taken_only_when_asked_for_and_for_as_many_classes():
    with pytest.raises(HostileInput, match="--classes sorted"):
        match_classes(["dog", "ant"], (), 2)
    assert match_classes(["dog", "ant"], (), 2, "sorted").indices == {"ant": 0, "dog": 1}
    with pytest.raises(HostileInput):
        match_classes(["dog", "ant"], (), 3, "sorted")


def test_the_nearest_label_is_named():
    with pytest.raises(HostileInput, match="did you mean 'Grey Wolf'"):
        match_classes(["Bär", "Grey Wolff"], ANIMALS, 5)
