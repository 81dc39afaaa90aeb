"""Profiles, seeds, figures and widgets: small things every notebook leans on."""

import matplotlib.pyplot as plt
import pytest
import torch

from helpers import plots, settings, widgets


def test_profile_comes_from_the_environment_and_is_checked(monkeypatch, capsys):
    monkeypatch.setenv("DGM_PROFILE", "full")
    run = settings.start()
    assert run.full and run.pick(quick=1, full=2) == 2
    assert "profile full" in capsys.readouterr().out
    assert settings.start(profile="quick").pick(quick=1, full=2) == 1
    monkeypatch.setenv("DGM_PROFILE", "fast")
    with pytest.raises(ValueError, match=r"'fast'; wanted one of \('quick', 'full'\)"):
        settings.start()


def test_seeds_repeat_and_differ():
    run = settings.start(seed=3)
    a = torch.rand(2)
    settings.start(seed=3)
    assert torch.equal(a, torch.rand(2))
    draw = lambda offset: torch.rand(2, generator=run.generator(offset))  # noqa: E731
    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))


def test_image_grid_puts_every_pixel_in_its_place():
    images = torch.rand(5, 3, 4, 6)
    ax = plots.image_grid(images, columns=2, titles=["a", "b", "c"])
    sheet = torch.as_tensor(ax.images[0].get_array())
    assert sheet.shape == (3 * 5, 2 * 7, 3)
    torch.testing.assert_close(sheet[5:9, 7:13], images[3].permute(1, 2, 0))
    for bad, titles, message in ((images[0], None, "wanted"), (images, ["a"], "1 row titles for 3 rows")):
        with pytest.raises(ValueError, match=message):
            plots.image_grid(bad, columns=2, titles=titles)
    plt.close("all")


def test_curves_draw_each_line_under_its_name():
    ax = plots.curves({"a": ([0, 1], [2, 3]), "b": ([0, 1], [4, 5])}, "x", "y")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[2, 3], [4, 5]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b"] and ax.get_xlabel() == "x"
    plt.close("all")


@pytest.mark.parametrize(("variable", "value", "want"), [("DGM_LIVE", "1", True), ("DGM_LIVE", "0", False)])
def test_explorer_always_draws_its_twin_and_controls_only_when_live(monkeypatch, variable, value, want):
    monkeypatch.setenv(variable, value)
    assert widgets.live() is want
    calls = []
    widgets.explore(lambda k: calls.append(k), lambda: calls.append("twin"), k=(0, 4, 1))
    assert calls == (["twin", 2] if want else ["twin"])


def test_nobody_is_there_while_grading(monkeypatch):
    monkeypatch.delenv("DGM_LIVE", raising=False)
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert widgets.live()
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert not widgets.live()
