import json

from benchmarks.speed import write


def test_speed_is_measured_written_and_drawn(tmp_path):
    write(tmp_path, "vim_micro", "test_vit", sizes=[32, 64], shares=[0.8, 0.5], rounds=1)
    found = json.loads((tmp_path / "speed.json").read_text())
    assert [(t["model"], t["case"], t["img_size"]) for t in found["sizes"]] == [
        (name, case, size)
        for size in (32, 64)
        for name, case in (("vim_micro", "dense"), ("vim_micro", "top"), ("test_vit", "dense"))
    ]
    for preset in ("top", "hold"):
        dense, *pruned = found["shares"][preset]
        flops = [t["exact_gflops"] for t in (dense, *pruned)]
        assert flops == sorted(flops, reverse=True)
        assert [t["case"] for t in pruned] == [f"{preset}, 0.8", f"{preset}, 0.5"]
    for picture in ("speed.png", "speed_kept.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
