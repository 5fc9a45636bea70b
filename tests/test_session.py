"""The session that the functions of the API share."""

import json

from rich.console import Console

from flaxdigits.api.session import Session
from flaxdigits.overrides import apply_overrides

pytest_plugins = ["tiny_run"]


def test_data_of_several_configs_are_loaded_once(tiny_config):
    session = Session(Console())
    other = apply_overrides(tiny_config, ["train.steps=3", "data.limit=50"])
    assert session.load(tiny_config).images is session.load(other).images


def test_only_a_config_with_an_index_file_gets_its_indices(tiny_config, tmp_path):
    path = tmp_path / "indices.json"
    path.write_text(json.dumps({"train": [3, 1], "test": [2]}))
    indexed = apply_overrides(tiny_config, ["data.split=indices", f"data.indices={path}"])
    session = Session(Console())
    assert session.load(indexed).index_file.parts["train"].tolist() == [3, 1]
    assert session.load(tiny_config).index_file is None
