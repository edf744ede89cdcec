import torch

from skimba.tokens import NONE, Layout, Tokens


def tokens(residual=True):
    torch.manual_seed(0)
    x, r = torch.randn(2, 2, 7, 3)
    return Tokens(x, Layout((2, 3), (3,)), r if residual else None)


def test_dense_tokens_scatter_to_their_grid():
    t = tokens()
    full = t.stream
    expected = torch.cat([full[:, :3], full[:, 4:]], 1).unflatten(1, (2, 3))
    assert torch.equal(t.scatter(), expected)


def test_dropped_tokens_scatter_as_zeros_and_owned_ones_as_their_owner():
    t = tokens()
    kept = torch.tensor([[0, 3, 5], [1, 3, 6]])
    bare = t.keep(kept, None, NONE)
    grid = bare.scatter()
    assert torch.equal(grid[0, 0, 0], t.stream[0, 0])
    assert torch.equal(grid[0, 1, 1], t.stream[0, 5])
    assert grid[0].ne(0).any(-1).sum() == 2
    heir = torch.tensor([[0, 0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 2, 2, 2]])
    owned = t.keep(kept, heir, NONE)
    assert torch.equal(owned.scatter()[0, 0], t.stream[0, [0, 0, 0]])
    assert torch.equal(owned.scatter()[1, 1], t.stream[1, [6, 6, 6]])
    assert owned.layout.size.tolist() == [[3, 1, 3], [3, 1, 3]]


def test_ownership_passes_on_over_stages():
    t = tokens()
    first = t.keep(torch.tensor([[0, 2, 3, 5]] * 2), torch.tensor([[0, 0, 1, 2, 3, 3, 3]] * 2), NONE)
    second = first.keep(torch.tensor([[0, 2, 3]] * 2), torch.tensor([[0, 0, 1, 2]] * 2), NONE)
    assert second.owner.tolist() == [[0, 0, 0, 1, 2, 2, 2]] * 2
    assert second.position.tolist() == [[0, 3, 5]] * 2
    assert second.extra_places.tolist() == [[1], [1]]


def test_merging_in_steps_gives_the_mean_over_all_positions_owned():
    t = tokens()
    first = t.merge(torch.tensor([[0, 2, 3, 5]] * 2), torch.tensor([[0, 0, 1, 2, 3, 3, 3]] * 2), NONE)
    second = first.merge(torch.tensor([[0, 2, 3]] * 2), torch.tensor([[0, 0, 1, 2]] * 2), NONE)
    for got, full in ((second.x, t.x), (second.residual, t.residual)):
        torch.testing.assert_close(got[:, 0], full[:, :3].mean(1))
        torch.testing.assert_close(got[:, 1], full[:, 3])
        torch.testing.assert_close(got[:, 2], full[:, 4:].mean(1))
