"""What a study's file says: its fields, its variants, and where it finds its experiment."""

import re
import shlex
import shutil

import pytest

from flaxdigits.errors import FlaxdigitsError
from flaxdigits.experiments import BUILT_IN
from flaxdigits.models import build_model
from flaxdigits.studies.study import (
    ABLATIONS,
    Study,
    combinations,
    folder_name,
    load_study,
    same_images,
    seed_workdir,
    variants_of,
)

pytest_plugins = ["tiny_run"]


@pytest.mark.parametrize("name", sorted(path.stem for path in ABLATIONS.glob("*.py")))
def test_built_in_studies_are_valid(name):
    study = load_study(name)
    configs = variants_of(study)
    assert len(configs) > 1 and len(study.seeds) >= 5
    for config in configs.values():
        build_model(config.model, 10)
        assert config.data.split != "official"


def test_the_studies_of_the_systems_exist():
    assert {path.stem for path in ABLATIONS.glob("*.py")} >= {
        "chinese_cnn", "mse_cnn", "dense_cnn", "kaggle_cnn"}


def test_a_grid_is_every_combination_and_the_base_is_one_of_them():
    study = Study(
        "dense_cnn", overrides=("data.split=holdout",), variants={"slow": ("train.epochs=20",)},
        grid={"data.preprocessing": ("column_norm", "unit"), "model.dense": ((8, 8), (4,)),
              "rate": {"low": (), "high": ("optimizer.learning_rate=0.1",)}})
    configs = variants_of(study, ["train.batch_size=7"])
    assert list(configs)[:2] == ["base", "slow"]
    assert len(configs) == 2 + 2 * 2 * 2
    config = configs["preprocessing=unit, dense=4, high"]
    assert (config.data.preprocessing, config.model.dense) == ("unit", (4,))
    assert config.optimizer.learning_rate == 0.1
    assert all(config.train.batch_size == 7 for config in configs.values())
    with_base = Study("dense_cnn", grid={"model.dropout": (0.1, ())})
    assert list(variants_of(with_base)) == ["base", "dropout="]


def test_a_level_that_several_factors_have_is_preceded_by_its_factor():
    same_levels = Study("dense_cnn", grid={
        "EMA": {"off": (), "on": ("train.ema=0.9",)},
        "shear": {"off": (), "on": ("data.augmentation=affine",), "more": ("train.ema=0.5",)}})
    assert [", ".join(levels) for levels, _ in combinations(same_levels.grid)] == [
        "EMA=off, shear=off", "EMA=off, shear=on", "EMA=off, more",
        "EMA=on, shear=off", "EMA=on, shear=on", "EMA=on, more"]


@pytest.mark.parametrize(("variant", "folder"), [
    ("dropout=0.1,0.2", "dropout_0.1_0.2"), ("model.dropout=(0.1,)", "model.dropout_0.1"),
    ("preprocessing=unit, dense=4, high", "preprocessing_unit_dense_4_high"),
    ("it's \"big\" & $HOME; `ls` *?[a]{b}~!#<x>|\\", "it_s_big_HOME_ls_a_b_x"),
    ("x=-1", "x_-1"), ("-rf", "rf"), ("..", "_"), ("宽 2", "宽_2"),
])
def test_a_shell_reads_the_folder_of_a_variant_as_one_word(variant, folder):
    assert folder_name(variant) == folder
    assert shlex.quote(folder) == folder or not folder.isascii()


def test_the_folder_of_an_earlier_version_is_used_if_it_exists(tmp_path):
    assert seed_workdir(tmp_path, "dropout=0.1,0.2") == tmp_path / "dropout_0.1_0.2"
    (tmp_path / "dropout=0.1,0.2").mkdir()
    assert seed_workdir(tmp_path, "dropout=0.1,0.2") == tmp_path / "dropout=0.1,0.2"
    assert seed_workdir(tmp_path, "dropout=0.3") == tmp_path / "dropout_0.3"
    (tmp_path / "dropout_0.1_0.2").mkdir()
    assert seed_workdir(tmp_path, "dropout=0.1,0.2") == tmp_path / "dropout_0.1_0.2"


def test_bad_variants_are_named():
    with pytest.raises(FlaxdigitsError, match=r"variant 'wide': .*did you mean filters"):
        variants_of(Study("dense_cnn", variants={"wide": ("model.filter=64",)}))
    with pytest.raises(FlaxdigitsError, match="'a b' has the same folder name as another"):
        variants_of(Study("dense_cnn", variants={
            "a_b": ("train.epochs=2",), "a b": ("train.epochs=3",)}))


@pytest.mark.parametrize("variants, message", [
    ({"seed": ("seed=5",)}, "variant 'seed' changes seed, but every variant is trained"),
    ({"a": ("model.dropout=0.4",), "b": ("model.dropout=0.4",)},
     "variant 'b' has the same config as 'a'"),
    ({"study.md": ("train.epochs=2",)}, "variant 'study.md': names that start with study."),
    ({"two rates": ("model.dropout=0.1,0.1",)}, "variant 'two rates': model.dropout must be empty"),
])
def test_misleading_variants_are_rejected(variants, message):
    with pytest.raises(FlaxdigitsError, match=re.escape(message)):
        variants_of(Study("dense_cnn", variants=variants))


def test_a_seed_of_all_variants_is_refused():
    study = Study("dense_cnn", variants={"a": ("train.epochs=3",)})
    with pytest.raises(FlaxdigitsError, match="dense_cnn with seed=7: a study trains every"):
        variants_of(study, ["seed=7"])


def test_images_are_the_same_unless_the_split_is_another():
    configs = variants_of(Study("chinese_cnn", overrides=("data.split=writers",), variants={
        "fold": ("data.fold=1",), "random": ("data.split=random",), "rate": ("train.epochs=5",),
        "less": ("data.limit=100",), "split seed": ("data.split_seed=1",)}))
    same = {name for name, config in configs.items() if same_images(config, configs["base"])}
    assert same == {"base", "rate", "less"}


def test_texts_of_a_grid_stay_as_they_are():
    own = Study("mse_cnn", overrides=("data.dataset=idx_files", "data.folder=/c"), grid={
        "data.folder": ("/Data/A", "/b"), "model.batch_norm": (True,), "data.limit": (None, 9)})
    folders = {(config.data.folder, config.model.batch_norm, config.data.limit)
               for name, config in variants_of(own).items() if name != "base"}
    assert folders == {(folder, True, limit) for folder in ("/Data/A", "/b")
                       for limit in (None, 9)}


def test_a_variant_that_changes_nothing_is_an_error():
    study = Study("dense_cnn", variants={"slow": ("train.epochs=20",)})
    assert list(variants_of(study)) == ["base", "slow"]
    with pytest.raises(FlaxdigitsError, match="variant 'slow' does not differ from the base"):
        variants_of(study, ["train.epochs=20"])


def test_the_path_of_an_experiment_is_relative_to_its_study(tmp_path, monkeypatch):
    study = "from flaxdigits.studies.study import Study\n\ndef get_study():\n    return Study({!r})"
    (tmp_path / "a").mkdir()
    shutil.copy(BUILT_IN / "mse_cnn.py", tmp_path / "a" / "own.py")
    (tmp_path / "a" / "near.py").write_text(study.format("own.py"))
    (tmp_path / "far.py").write_text(study.format(str(tmp_path / "a" / "own.py")))
    for folder, path in ((tmp_path, "a/near.py"), (tmp_path / "a", "near.py"),
                         (tmp_path, "far.py")):
        monkeypatch.chdir(folder)
        assert variants_of(load_study(path))["base"].experiment == "mse_cnn"


WRONG = {
    "seeds=5": "seeds must be distinct integers from 0 to 2**32 - 1, as in range(5), got 5",
    "seeds='01'": "seeds must be distinct integers",
    "seeds=(0, 1.5)": "seeds must be distinct integers",
    "seeds=(0, 2**32)": "seeds must be distinct integers",
    "experiment=3": "experiment must be a name, or the path of a file, got 3",
    "overrides='seed=1'": "overrides must be a list of strings, as in ('train.epochs=5',)",
    "variants=['a']": "variants must be overrides by name",
    "variants={3: ()}": "variants must be overrides by name, and names must be strings, got 3",
    "variants={'a': 'model.dropout=0.3'}": "variants['a'] must be a list of strings",
    "variants={'a': (3,)}": "variants['a'] must be a list of strings, as in ('train.epochs=5',)",
    "grid=(1, 2)": "grid must be values by field",
    "grid={3: (1,)}": "grid must be values by the names of fields, got 3",
    "grid={'model.dropout': 0.3}": "grid['model.dropout'] must be several values",
    "grid={'model.dropout': '12'}": "grid['model.dropout'] must be several values",
    "grid={'model.dropout': ()}": "grid['model.dropout'] must be at least one value, got ()",
    "grid={'rate': {'low': 'seed=1'}}": "grid['rate']['low'] must be a list of strings",
    "metric='accuracy'": "metric must be a metric of the validation or test split, such as "
                         "validation_accuracy, got 'accuracy'",
    "metric=[]": "metric must be a metric of",
    "extra_metrics='validation_loss'": "extra_metrics must be a list of strings, as in "
                                       "('test_accuracy',)",
    "extra_metrics=('loss',)": "extra_metrics must be metrics of a split",
}


@pytest.mark.parametrize("fields", WRONG)
def test_a_study_with_wrong_fields_is_reported_with_its_line(fields, launch_here, tmp_path):
    path = tmp_path / "wrong.py"
    experiment = "" if fields.startswith("experiment") else "'mse_cnn', "
    path.write_text("from flaxdigits.studies.study import Study\n\ndef get_study():\n"
                    f"    return Study({experiment}{fields})\n")
    completed = launch_here(f"--ablation={path}")
    assert completed.returncode == 2 and completed.stderr.count("\n") == 1
    assert completed.stderr.startswith(f"error: {path}:4: {WRONG[fields]}"), completed.stderr
