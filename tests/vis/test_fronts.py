"""The picture of settings."""

from __future__ import annotations

import numpy as np
import pytest

from sniper.vis.figures import png_bytes
from sniper.vis.fronts import SettingView, plot_front


def view(name, cost_s, accuracy, *, on_front=True, chosen=False, mode="single"):
    return SettingView(
        name, mode, cost_s, accuracy, 0.01, on_front, chosen, np.array([0.5, np.nan])
    )


@pytest.mark.parametrize("count", [1, 2, 9])
def test_settings_the_front_and_the_choice_are_drawn(count):
    settings = [view(f"s{k}", 0.1 * (k + 1), 0.1 * (k + 1), chosen=k == 0) for k in range(count)]
    settings.append(view("beaten", 0.5, 0.01, on_front=False, mode="slice"))
    figure = plot_front(
        settings,
        heading="heading",
        cost_name="ms",
        accuracy_name="ap",
        sizes=["0-16", "16+"],
        objects=[3, 0],
        budget_s=0.2,
    )
    left, right = figure.axes
    texts = [text.get_text() for text in left.texts]
    assert "s0" in texts and "beaten" not in texts
    labels = right.get_legend_handles_labels()[1]
    assert "s0 (chosen)" in labels and len(labels) <= 7
    assert {"front", "chosen", "budget", "single", "slice"} <= set(
        left.get_legend_handles_labels()[1]
    )
    assert png_bytes(figure)[:4] == b"\x89PNG"
