"""The mamba_ssm backend, against a stand-in of the signature of that package's function."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from skimba.ops import add_rms_norm, selective_scan
from skimba.ops.backends import mamba_ssm
from skimba.ops.inputs import ScanInputs
from tests.ops.scan_inputs import relative_error, scan_inputs, with_gradients
from tests.ops.test_selective_scan import OPTIONAL, error_of_sum


def selective_scan_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    """u, delta (b e l), A (e n), B and C (b n l) or (b groups n l); float32 within, the output in the dtype of u."""
    assert all(x.is_contiguous() for x in (u, delta, A, B, C))
    assert len({x.dtype for x in (u, delta, B, C)}) == 1
    assert A.dtype == torch.float32
    dtype, channels = u.dtype, u.shape[1]
    u, delta, B, C = (x.float() for x in (u, delta, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    B, C = (
        x[:, None].expand(-1, channels, -1, -1) if x.dim() == 3 else x.repeat_interleave(channels // x.shape[1], dim=1)
        for x in (B, C)
    )
    h, ys = torch.zeros(*u.shape[:2], A.shape[1]), []
    for t in range(u.shape[2]):
        h = torch.exp(delta[:, :, t, None] * A) * h + (delta[:, :, t] * u[:, :, t])[..., None] * B[..., t]
        ys.append((h * C[..., t]).sum(-1))
    y = torch.stack(ys, dim=-1)
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        y = y * F.silu(z.float())
    return (y.to(dtype), h) if return_last_state else y.to(dtype)


def by_stand_in(**inputs):
    return mamba_ssm.scan(ScanInputs(**inputs), selective_scan_fn)


def assert_matches(inputs, **options):
    expected = with_gradients(selective_scan, inputs, backend="reference", **options)
    got = with_gradients(by_stand_in, inputs, **options)
    errors = {name: relative_error(got[name], expected[name]) for name in expected}
    if "grad_delta_bias" in errors:
        errors["grad_delta_bias"] = error_of_sum(got["grad_delta_bias"], expected, "grad_delta")
    assert not {name: e for name, e in errors.items() if not e <= (1e-5 if name == "y" else 1e-4)}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "without", [(), OPTIONAL, ("hold",), ("order",), ("gap", "missing"), ("step", "hold", "missing"), ("z", "D")]
)
def test_matches_the_reference_in_values_and_gradients(without, reverse):
    assert_matches(scan_inputs(15, 6, 4, without=without), reverse=reverse)


def test_a_gap_per_channel_and_the_logarithm_of_A_match():
    inputs = scan_inputs(15, 6, 4, gap_per_channel=True)
    assert_matches({**inputs, "A": (-inputs["A"]).log()}, log_A=True)


def test_where_no_time_passes_nothing_is_added():
    inputs = scan_inputs(9, 6, 4, without=("gap", "missing"))
    inputs["step"], inputs["hold"] = inputs["step"].clone(), inputs["hold"].clone()
    inputs["step"][:, 3], inputs["hold"][:, 5] = 0, 0
    assert_matches(inputs)


def test_an_infinite_gap_empties_the_state():
    inputs = scan_inputs(9, 6, 4, without=("missing", "order"))
    inputs["gap"] = inputs["gap"].clone()
    inputs["gap"][:, 4] = float("inf")
    expected = selective_scan(**inputs, backend="reference")
    torch.testing.assert_close(by_stand_in(**inputs), expected, rtol=1e-5, atol=1e-5)


def test_a_time_that_is_not_allowed_gives_nan():
    for name, wrong in (("gap", -1.0), ("step", -1.0), ("hold", float("inf")), ("missing", float("nan"))):
        inputs = scan_inputs(5, 4, 2, without=("order",))
        inputs[name] = inputs[name].clone()
        inputs[name][:, 2] = wrong
        y = by_stand_in(**inputs)
        assert y[:, :2].isfinite().all()
        assert y[:, 2:].isnan().all(), name


def test_bfloat16_costs_no_more_than_the_rounding_of_what_the_kernel_takes():
    data = ("u", "delta", "B", "C", "z")
    inputs = {k: x.bfloat16() if k in data else x for k, x in scan_inputs(30, 12, 4).items()}
    y = by_stand_in(**inputs)
    assert y.dtype == torch.bfloat16
    wide = {k: x.float() if x.is_floating_point() else x for k, x in inputs.items()}
    assert relative_error(y, selective_scan(**wide, backend="reference")) <= 2e-2


def pretend(monkeypatch, installed):
    """Only these packages are found."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace() if name in installed else None)


@pytest.mark.parametrize(
    ("installed", "reason"),
    [
        ((), "the package mamba_ssm is not installed"),
        (("mamba_ssm",), "mamba_ssm was installed without its kernel; build it with MAMBA_KEEP_CUDA_BUILD=TRUE"),
    ],
)
def test_where_it_cannot_run_it_says_why(monkeypatch, installed, reason):
    pretend(monkeypatch, installed)
    assert mamba_ssm.reason() == reason
    with pytest.raises(RuntimeError, match=f"backend 'mamba_ssm' cannot run: {reason}"):
        selective_scan(**scan_inputs(3), backend="mamba_ssm")


def test_where_it_is_installed_it_runs_scans_and_the_dispatcher_all_else(monkeypatch):
    pretend(monkeypatch, ("mamba_ssm", "selective_scan_cuda"))
    inputs = scan_inputs(5, 6, 4)
    with pytest.raises(TypeError, match=r"backend 'mamba_ssm' needs .* on cuda, got torch\.float32 on cpu"):
        selective_scan(**inputs, backend="mamba_ssm")
    monkeypatch.setattr(mamba_ssm, "DEVICES", ("cpu",))
    package = SimpleNamespace(selective_scan_fn=selective_scan_fn)
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops.selective_scan_interface", package)
    expected = selective_scan(**inputs, backend="reference")
    torch.testing.assert_close(selective_scan(**inputs, backend="mamba_ssm"), expected, rtol=1e-4, atol=1e-5)
    x = torch.randn(1, 3, 4)
    y, _ = add_rms_norm(x, None, torch.ones(4), backend="mamba_ssm")
    torch.testing.assert_close(y, add_rms_norm(x, None, torch.ones(4), backend="reference")[0])
