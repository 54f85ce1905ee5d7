"""The HTML page around a Bokeh document: everything inline, the same bytes for the same data."""

import html
import json
from collections.abc import Mapping
from pathlib import Path

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.embed.util import standalone_docs_json_and_render_items
from bokeh.resources import Resources

from mpm import map_files
from mpm.study import Study

CODE = Path(__file__).with_name("web_map.js")
# nothing may be fetched from anywhere: the file works offline, and tells nobody who reads it
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
POLICY += "script-src 'unsafe-inline' 'unsafe-eval'"
STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1em auto; max-width: 1340px;
  padding: 0 1em; color: #222 }
h1 { font-size: 1.35em; margin: 0 0 .3em } p { margin: .25em 0; max-width: 90em }
footer { color: #555; font-size: .85em; margin-top: 1em }
"""


def page(document: Document, study: Study, target: str, facts: dict) -> str:
    """Return the HTML page, the same bytes for the same data.

    Parameters
    ----------
    document : Document
    study : Study
    target : str
    facts : dict
        Of `map_files`: what is known of the maps.
    """
    # bokeh numbers its models through all of a process, and names a page at random
    documents, _ = standalone_docs_json_and_render_items(document)
    (content,) = map(_numbered, documents.values())
    (root,) = content["roots"]
    data = json.dumps({"map": content}, separators=(",", ":")).replace("</", "<\\/")
    show = [{"docid": "map", "roots": {root["id"]: "map"}, "root_ids": [root["id"]]}]
    scripts = Resources(mode="inline", components=["bokeh", "bokeh-widgets"]).js_raw
    scripts.append(CODE.read_text(encoding="utf-8"))
    title = html.escape(f"{study.title or study.name}: {target}")
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<link rel="icon" href="data:,">',
            f"<title>{title}</title>\n<style>{STYLE}</style>",
            *(f"<script>\n{script}\n</script>" for script in scripts),
            f"</head>\n<body>\n<h1>{title}</h1>\n{_introduction(facts)}",
            f'<div id="map" data-root-id="{root["id"]}"></div>\n{_footer(study, facts)}',
            f'<script type="application/json" id="data">{data}</script>',
            "<script>\nBokeh.embed.embed_items(JSON.parse(",
            f'document.getElementById("data").textContent), {json.dumps(show)})\n</script>',
            "</body>\n</html>\n",
        ]
    )


def _numbered(content: Mapping) -> dict:
    """Number the models of a document from 1, in the order they occur."""
    names: dict[str, str] = {}

    def rename(item: dict) -> dict:
        if isinstance(item.get("id"), str):
            item["id"] = names.setdefault(item["id"], f"m{len(names) + 1}")
        return item

    return json.loads(serialize_json(content), object_hook=rename)


def _introduction(facts: dict) -> str:
    calibration = facts.get("calibration", map_files.NOT_CHECKED)
    means, not_means = map_files.meaning("likelihood", calibration)
    spread = map_files.MEANING["uncertainty"]
    return (
        f"<p><b>Likelihood</b> is {html.escape(means)}; it is {html.escape(not_means)}.</p>\n"
        f"<p><b>Uncertainty</b> is the {html.escape(spread)}.</p>"
    )


def _footer(study: Study, facts: dict) -> str:
    """Say where the numbers come from and how they are shown."""
    named = {key: facts[key] for key in ("preset", "split", "ensemble", "seed") if key in facts}
    model = ", ".join(f"{key} {value}" for key, value in named.items())
    lines = [f"Study {study.name}; model: {model or 'not stated'}.", study.licence, study.citation]
    lines.append(
        "The page holds every layer in 8 bits: values are rounded to 1/254 of their range, the"
        " outermost 0.1 % at each end are shown as ≤ or ≥, and cells of a very fine grid are"
        " averaged. The GeoTIFFs beside it are exact."
    )
    return (
        "<footer>" + "".join(f"<p>{html.escape(text)}</p>" for text in lines if text) + "</footer>"
    )
