"""The page itself: what is on it, and what happens on a click. It only shows what `Explorer` says; needs Gradio."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from elias_idx._wording import counted
from elias_idx.errors import MissingExtraError
from elias_idx.explore import render
from elias_idx.explore.explorer import Explorer
from elias_idx.model import Model

# Read when Gradio is imported: nobody is told that it is used.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
try:
    import gradio as gr
except ModuleNotFoundError as error:
    raise MissingExtraError("gradio", "explore") from error

# What was clicked on goes to Python as its number.
_ON_CLICK = """
element.addEventListener('click', event => {
  const target = event.target.closest('[data-label], [data-cluster]');
  if (target === null) return;
  const {label, cluster} = target.dataset;
  trigger('click', {label: label === undefined ? null : Number(label),
                    cluster: cluster === undefined ? null : Number(cluster)});
});
"""


_HINT = "<p>Click a label to see why.</p>"


@dataclass(frozen=True)
class _Answers:
    """What the page answers to a click or an input."""

    explorer: Explorer

    def search(self, text: str) -> tuple[str, str, str]:
        """The labels of a text; a hint instead of an explanation; the text, for explanations to come."""
        return self.explorer.predictions(text), _HINT, text

    def explain(self, text: str, event: gr.EventData) -> tuple[Any, Any, Any]:
        """Why a label was found; or, of a cluster, what it holds, on the other tab."""
        if (label := event._data.get("label")) is not None:
            return self.explorer.why(text, int(label)), gr.skip(), gr.skip()
        return gr.skip(), self.explorer.cluster(int(event._data["cluster"])), gr.Tabs(selected="clusters")

    def browse(self, event: gr.EventData) -> str:
        """What a cluster holds, or where a label hangs."""
        if (label := event._data.get("label")) is not None:
            return self.explorer.label(int(label))
        return self.explorer.cluster(int(event._data["cluster"]))

    def cluster(self, number: float | None) -> str:
        """What the cluster with a number holds."""
        return self.explorer.cluster(-1 if number is None else int(number))


def page(model: Model) -> gr.Blocks:
    """The page of a model, not yet served.

    Raises:
        ConfigError: as `Explorer`.
        DataError: as `Explorer`.
    """
    answers = _Answers(Explorer(model))
    with gr.Blocks(title="elias_idx", analytics_enabled=False) as blocks:
        gr.Markdown(
            f"## elias_idx explore\n{counted(model.index.num_labels, 'label')}, "
            f"{counted(model.index.num_clusters, 'cluster')}, trained on {counted(model.num_training_texts, 'text')}"
        )
        with gr.Tabs(selected="texts") as tabs:
            with gr.Tab("Texts", id="texts"):
                texts = _texts(answers)
            with gr.Tab("Clusters", id="clusters"):
                shown = _clusters(answers)
        for part in (texts.found, texts.why):
            part.click(answers.explain, texts.searched, [texts.why, shown, tabs], api_visibility="private")
    return blocks


class _Texts(NamedTuple):
    """Parts of the tab of texts."""

    searched: Any
    found: Any
    why: Any


def _texts(answers: _Answers) -> _Texts:
    """The tab where a text is typed."""
    text = gr.Textbox(label="Text", lines=3, elem_id="text", placeholder="Type or paste a text")
    button = gr.Button("Find its labels", variant="primary", elem_id="find")
    with gr.Row():
        parts = _Texts(gr.State(""), _clickable("", "found"), _clickable(_HINT, "why"))
    for start in (button.click, text.submit):
        start(answers.search, text, [parts.found, parts.why, parts.searched], api_visibility="private")
    return parts


def _clusters(answers: _Answers) -> Any:
    """The tab of clusters; gives the part that shows one."""
    with gr.Row():
        number = gr.Number(None, label="Cluster", precision=0, minimum=0, elem_id="number")
        name = gr.Textbox(label="Label, by its whole name", elem_id="name")
    with gr.Row():
        shown = _clickable("<p>Click or type a cluster or a label.</p>", "shown")
        with gr.Column():
            overviews = (
                _clickable(answers.explorer.largest(), "largest"),
                _clickable(answers.explorer.spread(), "spread"),
            )
    for part in (shown, *overviews):
        part.click(answers.browse, None, shown, api_visibility="private")
    number.submit(answers.cluster, number, shown, api_visibility="private")
    name.submit(answers.explorer.named, name, shown, api_visibility="private")
    return shown


def _clickable(value: str, name: str) -> Any:
    """HTML whose labels and clusters can be clicked on."""
    return gr.HTML(value, elem_id=name, js_on_load=_ON_CLICK, css_template=render.CSS)


def serve(model: Model, *, host: str = "127.0.0.1", port: int | None = None) -> tuple[gr.Blocks, str]:
    """Serves the page of a model, in threads of its own.

    Nothing is loaded from elsewhere: fonts are the system's, and nothing is reported.

    Args:
        model: as for `Explorer`.
        host: the address to listen at. Only this machine reaches the default one; "0.0.0.0" is for everybody.
        port: the port; by default the first free one from 7860 on.

    Returns:
        The page, whose `block_thread()` waits for an interruption and whose `close()` ends it, and its address.

    Raises:
        OSError: the port is taken.
        ConfigError: as `Explorer`.
        DataError: as `Explorer`.
    """
    blocks = page(model)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    _, address, _ = blocks.launch(
        server_name=host, server_port=port, theme=theme, share=False, quiet=True, ssr_mode=False, footer_links=[],
        prevent_thread_lock=True,
    )  # fmt: skip
    return blocks, address
