"""A model's two files as accidents and enemies leave them: one clear line, no work, no memory, no code.

The long runs, which cut a file at every byte and mutate thousands of descriptions, are marked slow.
"""

import json
import os
import random
import stat
import time
import tracemalloc
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import skimba
from skimba.models.checkpoint import read_state_dict
from skimba.store.publish import load_model, save_model

SMALL = {"depth": 1, "embed_dim": 16}
LONGEST_LINE = 600  # characters of a message besides the path


@pytest.fixture
def saved(tmp_path):
    """A small model's files: the JSON's path and its content."""
    torch.manual_seed(0)
    model = skimba.create_model("vim_micro", **SMALL)
    beside = save_model(model, tmp_path / "m.safetensors", {"top1": 0.5})
    return beside, json.loads(beside.read_text())


def refused(path, *errors):
    """The message of the refusal: one line, bounded, printable, and quick to come."""
    started = time.process_time()
    with pytest.raises(errors or ValueError) as caught:
        load_model(path)
    assert time.process_time() - started < 5
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < LONGEST_LINE + 2 * len(str(path)), message
    return message


def changed(saved, key, value):
    beside, content = saved
    content = json.loads(json.dumps(content))
    table, _, name = key.rpartition(".")
    (content[table] if table else content)[name] = value
    beside.write_text(json.dumps(content))
    return beside.with_suffix(".safetensors")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sizes.depth", 10**9),
        ("sizes.depth", 10**30),
        ("sizes.depth", 2),
        ("sizes.depth", 0),
        ("sizes.depth", -1),
        ("sizes.depth", 1.0),
        ("sizes.depth", True),
        ("sizes.depth", "1"),
        ("sizes.embed_dim", 0),
        ("sizes.embed_dim", 10**6),
        ("sizes.embed_dim", 32),
        ("sizes.patch_size", 0),
        ("sizes.patch_size", 1000),
        ("sizes.stride", 0),
        ("sizes.stride", [2]),
        ("sizes.img_size", [10**6, 10**6]),
        ("sizes.img_size", [28]),
        ("sizes.img_size", 0),
        ("sizes.in_chans", 3),
        ("sizes.num_classes", -3),
        ("sizes.num_classes", 11),
        ("sizes.drop_path_rate", 1.0),
        ("sizes.drop_path_rate", float("nan")),
        ("sizes.global_pool", "map"),
        ("sizes.global_pool", ["token"]),
        ("sizes.global_pool", "é" * 1000),
        ("input.crop_pct", 1e-9),
        ("input.crop_pct", float("nan")),
        ("input.crop_pct", "0.9"),
        ("input.mean", [float("nan")]),
        ("input.mean", [0.5, 0.5]),
        ("input.mean", 0.5),
        ("input.std", [0.0]),
        ("input.std", [-1.0]),
        ("input.std", [None]),
        ("model", ["vim_micro"]),
        ("model", "vim_micro\x1b[31m" * 10**4),
        ("prune", [1]),
        ("prune", "hold"),
        ("figures", [1]),
        ("dtype", "int8"),
        ("dtype", ["float32"]),
        ("classes", ["a"]),
        ("classes", {"a": 1}),
        ("classes", list(range(10))),
        ("sizes", []),
        ("format", "skimba 2"),
    ],
)
def test_a_wrong_value_is_refused(saved, key, value):
    refused(changed(saved, key, value))


@pytest.mark.parametrize("key", ["checkpoint", "pretrained", "weights", "features_only", "self", "\x1b[2J"])
def test_only_sizes_of_the_architecture_are_taken(saved, key):
    """A description must not name another file, or ask for a download."""
    assert "takes img_size" in refused(changed(saved, f"sizes.{key}", True), TypeError)


@pytest.mark.parametrize("keep", [5, "half", [0.5], {"1": "x"}, {"1": 2.0}, {"9": 0.5}, None])
def test_a_wrong_pruning_is_refused(tmp_path, keep):
    model = skimba.prune(skimba.create_model("vim_micro", **SMALL), "hold", {1: 0.5})
    beside = save_model(model, tmp_path / "m.safetensors")
    content = json.loads(beside.read_text())
    if keep is None:
        content["prune"] = {**content["prune"], "unheard_of": 1}
    else:
        content["prune"]["schedule"] = keep
    beside.write_text(json.dumps(content))
    refused(tmp_path / "m.safetensors", ValueError, TypeError)


def test_huge_sizes_take_no_memory(saved):
    tracemalloc.start()
    for key, value in (("sizes.depth", 10**6), ("sizes.embed_dim", 10**6), ("sizes.img_size", [10**6, 10**6])):
        refused(changed(saved, key, value))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "\ufeff{}", "[" * 10**5, "{}", "1e999", '{"a": NaN}', "\x00"])
def test_what_is_no_description_is_refused(saved, text):
    beside, _ = saved
    beside.write_text(text)
    refused(beside.with_suffix(".safetensors"))
    beside.write_bytes(b"\xff\xfe" + text.encode("utf-16-le"))
    refused(beside.with_suffix(".safetensors"))


def test_a_missing_file_is_named(saved):
    beside, _ = saved
    weights = beside.with_suffix(".safetensors")
    assert "suffix" not in refused(beside)
    beside.rename(beside.with_name("n.json"))
    assert f"no m.json beside {weights}" in refused(weights, FileNotFoundError)
    beside.with_name("n.json").rename(beside)
    weights.unlink()
    assert refused(weights, FileNotFoundError) == f"no weights file at {weights}"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_neither_read_nor_written(saved, bad):
    beside, _ = saved
    weights = beside.with_suffix(".safetensors")
    model = load_model(weights)
    tensors = load_file(weights)
    tensors["norm_f.weight"][3] = bad
    save_file(tensors, weights)
    assert "not finite (NaN or infinity): norm_f.weight" in refused(weights)
    with torch.no_grad():
        model.norm_f.weight[3] = bad
    with pytest.raises(ValueError, match=r"not finite .* not written: norm_f\.weight"):
        save_model(model, weights)


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        beside = save_model(skimba.create_model("vim_micro", **SMALL), tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    for path in (beside, beside.with_suffix(".safetensors")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["vim_micro", "plain_mamba_micro"])
def test_a_model_comes_back_in_its_dtype(tmp_path, name, dtype):
    model = skimba.create_model(name, **SMALL).to(dtype)
    save_model(model, tmp_path / "m.safetensors")
    found = load_model(tmp_path / "m.safetensors").state_dict()
    for key, tensor in model.state_dict().items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor)


def test_class_names_go_with_the_weights(tmp_path):
    names = tuple(f"class {number}" for number in range(10))
    model = skimba.create_model("vim_micro", **SMALL)
    model.pretrained_cfg["label_names"] = names
    beside = save_model(model, tmp_path / "m.safetensors")
    assert tuple(json.loads(beside.read_text())["classes"]) == names
    assert load_model(tmp_path / "m.safetensors").pretrained_cfg["label_names"] == names
    del model.pretrained_cfg["label_names"]
    save_model(model, tmp_path / "m.safetensors")
    assert "label_names" not in load_model(tmp_path / "m.safetensors").pretrained_cfg


def test_a_changed_model_is_written_so_that_it_can_be_read_or_not_at_all(tmp_path):
    path = tmp_path / "m.safetensors"
    model = skimba.create_model("vim_micro", num_classes=3, **SMALL)
    model.reset_classifier(7, "avg")
    save_model(model, path)
    found = load_model(path)
    assert (found.num_classes, found.global_pool) == (7, "avg")
    model.head = torch.nn.Linear(16, 5)  # as users do
    save_model(model, path)
    assert load_model(path).num_classes == 5
    before = path.read_bytes()
    model.head = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Linear(16, 5))
    with pytest.raises(ValueError, match=r"could not be read back: .*head\.0\.weight"):
        save_model(model, path)
    assert path.read_bytes() == before


def test_a_file_written_by_0_1_0_still_loads(saved):
    beside, content = saved
    for key in ("dtype", "classes"):
        del content[key]
    content["sizes"].pop("global_pool")
    beside.write_text(json.dumps(content))
    assert load_model(beside.with_suffix(".safetensors")).num_classes == 10


class _Claim:
    """A pickled tensor of many values on the storage of one."""

    @staticmethod
    def save(path):
        torch.save({"pos_embed": torch.zeros(1).expand(1, 10**9, 16), "head.bias": torch.zeros(10)}, path)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin"])
def test_a_small_file_cannot_claim_a_huge_tensor(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    _Claim.save(path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="not plain arrays of the size of their data: pos_embed"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(16),
        torch.zeros(1, 16),
        torch.zeros(2, 197, 16),
        torch.zeros(1, 1, 16),
        torch.zeros(1, 0, 16),
        torch.zeros(()),
    ],
)
def test_a_position_embedding_of_a_wrong_form_is_refused(tmp_path, wrong):
    model = skimba.create_model("vim_micro", **SMALL)
    torch.save({**model.state_dict(), "pos_embed": wrong}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"pos_embed|position embedding"):
        skimba.load_checkpoint(model, tmp_path / "m.pth")


def test_other_kinds_of_numbers_are_refused(tmp_path):
    model = skimba.create_model("vim_micro", **SMALL)
    for odd in (
        torch.zeros(16, dtype=torch.int64),
        torch.zeros(16, dtype=torch.complex64),
        torch.zeros(16).to_sparse(),
    ):
        torch.save({**model.state_dict(), "norm_f.weight": odd}, tmp_path / "m.pth")
        with pytest.raises(ValueError, match=r"norm_f\.weight"):
            skimba.load_checkpoint(model, tmp_path / "m.pth")


def test_a_refusal_never_advises_to_run_code(tmp_path):
    path = tmp_path / "m.pth"
    torch.save({"model": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(ValueError, match=r"code in it is never run: it asks for torch\.nn") as caught:
        read_state_dict(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and its files are still about
        torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)
    with pytest.raises(ValueError, match="not a checkpoint") as other:
        read_state_dict(path)
    for message in (str(caught.value), str(other.value)):
        assert "weights_only" not in message
        assert "safe_globals" not in message
        assert "\n" not in message


def test_names_in_a_checkpoint_cannot_colour_or_flood_a_terminal(tmp_path):
    model = skimba.create_model("vim_micro", **SMALL)
    torch.save({f"\x1b[31m{'x' * 1000}{number}": torch.zeros(1) for number in range(1000)}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="1000 unexpected") as caught:
        skimba.load_checkpoint(model, tmp_path / "m.pth")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def averaged(model):
    return {name: tensor + 1 for name, tensor in model.state_dict().items()}


def test_a_moving_average_is_taken_by_choice(tmp_path):
    model = skimba.create_model("vim_micro", **SMALL)
    path = tmp_path / "m.pth"
    torch.save({"model": model.state_dict(), "model_ema": averaged(model)}, path)
    plain = skimba.create_model("vim_micro", checkpoint=path, **SMALL)
    ema = skimba.create_model("vim_micro", checkpoint=path, weights="ema", **SMALL)
    assert torch.equal(plain.head.weight, model.head.weight)
    assert torch.equal(ema.head.weight, model.head.weight + 1)
    torch.save({"model": model.state_dict()}, path)
    with pytest.raises(ValueError, match="holds no moving average"):
        skimba.load_checkpoint(model, path, weights="ema")
    with pytest.raises(ValueError, match="unknown weights 'best'; known: model, ema"):
        skimba.load_checkpoint(model, path, weights="best")


def test_buffers_of_a_moving_average_beside_the_weights_are_ignored(tmp_path):
    model = skimba.create_model("plain_mamba_micro", **SMALL)
    beside = {f"ema_{name.replace('.', '_')}": tensor for name, tensor in averaged(model).items()}
    torch.save({"state_dict": {**model.state_dict(), **beside}}, tmp_path / "m.pth")
    report = skimba.load_checkpoint(skimba.create_model("plain_mamba_micro", **SMALL), tmp_path / "m.pth")
    assert sorted(report.ignored) == sorted(beside)


def cut(path, whole, lengths):
    for length in lengths:
        path.write_bytes(whole[:length])
        refused(path if path.suffix == ".safetensors" else path.with_suffix(".safetensors"))


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_files_cut_anywhere(saved, suffix):
    path = saved[0].with_suffix(suffix)
    whole = path.read_bytes()
    cut(path, whole, random.Random(0).sample(range(len(whole.rstrip())), 60))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".pth"])
def test_files_cut_at_every_byte(saved, suffix):
    path = saved[0].with_suffix(suffix)
    if suffix == ".pth":
        torch.save(load_file(path.with_suffix(".safetensors")), path)
        whole = path.read_bytes()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"m\.pth"):
                read_state_dict(path)
        return
    whole = path.read_bytes()
    cut(path, whole, range(len(whole.rstrip())))


ODD = [None, True, False, 0, 1, -1, 2, 10**9, 10**30, 0.5, -0.5, 1e300, float("nan"), float("inf")]
ODD += ["", "x", "vim_micro", "\x1b[2J", "é" * 1000, [], [1], [[]], {}, {"a": 1}, [0.5] * 3, {"depth": 10**9}]


def mutate(content, chance):
    """One value somewhere in the description replaced, removed, doubled or renamed."""
    place, key = content, chance.choice(sorted(content))
    while isinstance(place[key], dict) and place[key] and chance.random() < 0.8:
        place = place[key]
        key = chance.choice(sorted(place))
    kind = chance.randrange(4)
    if kind == 0:
        del place[key]
    elif kind == 1:
        place[chance.choice(["x", key + " ", key.upper(), "checkpoint", "depth", "keep"])] = place[key]
    else:
        place[key] = chance.choice(ODD)


def fuzz(saved, tries):
    beside, content = saved
    pruned = skimba.prune(load_model(beside.with_suffix(".safetensors")), "hold", {1: 0.5})
    save_model(pruned, beside.with_suffix(".safetensors"))
    content, chance = json.loads(beside.read_text()), random.Random(0)
    for _ in range(tries):
        other = json.loads(json.dumps(content))
        for _ in range(chance.choice([1, 1, 2, 3])):
            mutate(other, chance)
            if not other:
                break
        beside.write_text(json.dumps(other))
        started = time.process_time()
        message = refusal(beside.with_suffix(".safetensors"))
        assert message.isprintable(), (other, message)
        assert len(message) < LONGEST_LINE + 2 * len(str(beside)), (other, message)
        assert time.process_time() - started < 5, other


def refusal(path):
    """What is said of a model file that may be whole; nothing if it is."""
    try:
        load_model(path)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def test_mutated_descriptions(saved):
    fuzz(saved, 150)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_mutated_descriptions(saved):
    fuzz(saved, 20_000)
