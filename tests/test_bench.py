import pytest
import torch

import skimba
from skimba.reports.bench import FLOORS, MATRIX_PRODUCTS, PRUNED, REFERENCE, _Recorder, _whole, bench


def test_every_case_is_timed_in_every_round(monkeypatch):
    rounds = []
    cases = ["dense", *PRUNED, *FLOORS, REFERENCE]
    timings = bench(["vim_micro"], cases, ["fp32", "bf16"], [1, 2], [None], 2, lambda: rounds.append(1))
    assert len(rounds) == 2 * 3  # dtypes take turns too
    assert [t.case for t in timings] == cases * 4
    assert all(t.time_ms > 0 and t.speedup > 0 for t in timings)
    assert all((t.exact_gflops is not None) == (t.case not in (*FLOORS, REFERENCE)) for t in timings)
    assert {(t.dtype, t.batch, t.img_size) for t in timings} == {(d, b, 28) for d in ("fp32", "bf16") for b in (1, 2)}


def test_compiled_models_take_turns_with_the_others(monkeypatch):
    asked, compiled = [], []

    def stand_in(model, **options):
        asked.append((model.reducer is not None, options))
        return lambda images: compiled.append(model(images).shape)

    monkeypatch.setattr(torch, "compile", stand_in)
    timings = bench(["vim_micro"], ["dense", "dense, compiled", "top, compiled"], ["fp32"], [2], [None], 1)
    assert [t.case for t in timings] == ["dense", "dense, compiled", "top, compiled"]
    assert asked == [(pruned, {"fullgraph": True, "dynamic": False}) for pruned in (False, True)]
    assert compiled == [(2, 10)] * 4
    assert timings[0].exact_gflops == timings[1].exact_gflops > timings[2].exact_gflops


@pytest.mark.slow
def test_more_models_of_a_class_are_compiled_than_torch_compiles_by_default(monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    timings = bench(["vim_micro"], ["dense, compiled", "top, compiled"], ["fp32", "bf16"], [1], [None], 1)
    assert len(timings) == 4


def test_the_floor_holds_all_matrix_products_of_the_model():
    model = skimba.create_model("vim_micro", depth=3).eval()
    with torch.no_grad(), _Recorder(MATRIX_PRODUCTS) as recorder:
        model(torch.randn(2, 1, 28, 28))
    # In each block in_proj, out_proj, and x_proj and dt_proj of both directions; the patches; the head.
    assert len(recorder.calls) == 3 * 6 + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["vim_huge"], ["dense"], ["fp32"], [1]), "unknown model 'vim_huge'"),
        ((["vim_micro"], ["fast"], ["fp32"], [1]), "unknown case 'fast'; known: dense, top"),
        ((["vim_micro"], ["scans, compiled"], ["fp32"], [1]), "unknown case 'scans, compiled'; known: dense, top"),
        ((["vim_micro"], ["dense"], ["fp8"], [1]), "unknown dtype 'fp8'; known: fp32, bf16, int8"),
        ((["vim_micro"], ["dense"], ["fp32"], [0]), "at least one round and one image"),
    ],
)
def test_bad_arguments_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        bench(*arguments, [None], 1)


def test_models_images_and_floors_are_on_the_device():
    cases = ["dense", *FLOORS]
    timings = bench(["vim_micro"], cases, ["bf16"], [1], [None], 1, device="meta")  # another device would be refused
    assert [t.case for t in timings] == cases


def test_a_time_on_a_gpu_ends_when_the_gpu_has_finished(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    _whole(lambda: done.append("run"), "cuda")()
    _whole(lambda: done.append("run"), "cpu")()
    assert done == ["run", "wait", "run"]


def test_without_a_gpu_there_is_nothing_to_time_on_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' cannot be used: torch finds no CUDA device"):
        bench(["vim_micro"], ["dense"], ["fp32"], [1], [None], 1, device="cuda")


def test_int8_is_timed_beside_float32_and_what_has_none_is_left_out():
    names = ["vim_micro", "test_vit"]
    timings = bench(names, ["dense", "hold", "matrix products"], ["fp32", "int8", "int8+bf16"], [1], [None], 1)
    found = [(t.model, t.dtype, t.case) for t in timings]
    ours = [
        ("vim_micro", dtype, case) for dtype in ("fp32", "int8", "int8+bf16") for case in ("dense", "hold", FLOORS[0])
    ]
    assert sorted(found) == sorted([*ours, ("test_vit", "fp32", "dense"), ("test_vit", "fp32", FLOORS[0])])


def test_the_floor_of_an_int8_model_holds_its_products():
    model = skimba.quantize(skimba.create_model("vim_micro", depth=3).eval())
    with torch.no_grad(), _Recorder(MATRIX_PRODUCTS) as recorder:
        model(torch.randn(2, 1, 28, 28))
    called = [operator for operator, _ in recorder.calls]
    assert called.count(torch.ops.skimba.int8_linear.default) == 3 * 4
    assert len(called) == 3 * 6 + 2
