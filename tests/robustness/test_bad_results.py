"""Tables that notebooks 05 and 06 read, and checkpoints that a training takes up again."""

import shlex

import pytest
from bad_inputs import PROPERTY, checksums, line

from mpm import checkpoints, mapping, overview, score_store, stress
from mpm.__main__ import main
from mpm.checkpoints import Checkpoint
from mpm.study import load

DONE = "processed/toy"
TRAIN = "pretrain toy.yaml --device cpu --split final"
READERS = {
    "scores.parquet": [
        lambda study: score_store.read_scores(study.processed / "scores.parquet"),
        lambda study: overview.headline(study, "MVT", seed=7, methods=["mae"]),
    ],
    "stress.parquet": [stress.read],
    "MVT/predictions_mae.parquet": [lambda study: mapping.read_predictions(study, "MVT")],
}


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("share", [0, 0.5])
def test_a_bad_table_of_results_is_named(file, share, home, record_property):
    "Empty, or cut short: which notebook makes it again, and what lies beside it stays"
    content = (home / DONE / "scores.parquet").read_bytes()
    (home / DONE / file).write_bytes(content[: int(share * len(content))])
    before = checksums(home)
    for read in READERS[file]:
        with pytest.raises(ValueError, match=rf"{file} is damaged .*run notebook 0\d_") as caught:
            read(load("toy.yaml"))
    assert checksums(home) == before
    said = str(caught.value).replace(f"{home}/", "")
    record_property(PROPERTY, line("results", f"{file}, {share:.0%} of it", said))


def stop(self, progress):
    "Write a checkpoint, and be interrupted"
    checkpoints.write(self.path, progress, self.fingerprint)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("wrong", "damage", "says"),
    [
        ("cut short", lambda content: content[:-100], "is damaged"),
        ("a byte changed", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "is damaged"),
        ("of another configuration", None, "is of another training"),
    ],
)
def test_a_bad_checkpoint_is_named_and_training_starts_anew(
    wrong, damage, says, home, monkeypatch, record_property
):
    "The backbone is the same as without a checkpoint, and no checkpoint is left"
    place = home / DONE / "backbones" / "final_0.safetensors"
    weights = place.with_suffix("") / "model.safetensors"
    whole = weights.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "update", stop)
        assert main(shlex.split(f"{TRAIN} --steps {2 if damage else 3}")) == 130
    assert weights.read_bytes() == whole
    if damage:
        place.write_bytes(damage(place.read_bytes()))
    with pytest.warns(UserWarning, match=rf"final_0\.safetensors {says}") as told:
        assert main(shlex.split(f"{TRAIN} --steps 2")) == 0
    assert weights.read_bytes() == whole and not place.exists()
    said = str(told[0].message).replace(f"{home}/", "")
    record_property(PROPERTY, line("checkpoint", wrong, said))
