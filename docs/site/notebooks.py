"""From a notebook with its outputs to a page of the site."""

from typing import Any

SHOWN = ("text/html", "image/png", "text/plain")  # of what an output offers, the first there is


def page(book: dict[str, Any], name: str) -> str:
    """A notebook (its JSON) as Markdown, its outputs below its cells. name: of its file, which lies
    beside the page.
    """
    cells = [_cell(cell) for cell in book["cells"]]
    head, *rest = cells
    took = f'<p><a href="{name}" download>The notebook</a>, with the outputs of a run.</p>'
    return "\n\n".join([head, took, *rest]) + "\n"


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        return source
    return "\n\n".join([f"```python\n{source}\n```", *map(_output, cell["outputs"])])


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = {kind: "".join(text) for kind, text in output["data"].items()}
    kind = next(kind for kind in SHOWN if kind in data)
    if kind == "text/plain":
        return f"```text\n{data[kind]}\n```"
    if kind == "image/png":
        image = data[kind].replace("\n", "")
        return f'<div class="output"><img alt="" src="data:image/png;base64,{image}"></div>'
    return f'<div class="output">\n{data[kind]}\n</div>'
