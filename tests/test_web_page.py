import re
from types import SimpleNamespace

import numpy as np
from bokeh.document import Document
from bokeh.models import ColumnDataSource, Div

from mpm import web_page

STUDY = SimpleNamespace(name="toy", title="<Toy> & co", licence="CC0", citation="")


def made(text="a </script> b", facts=None) -> str:
    document = Document()
    document.add_root(Div(text=text, tags=[ColumnDataSource({"codes": np.arange(9)})]))
    return web_page.page(document, STUDY, "MVT", facts or {})


def own(page) -> str:
    "The page without the library's code"
    return re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_a_page_is_the_same_bytes_however_many_were_made_before():
    "Bokeh counts models through the process; the page counts from 1"
    first = made()
    assert made() == first and '"id":"m1"' in first
    assert made("other") != first


def test_a_page_asks_for_nothing_from_elsewhere():
    "No address but those of licences and names of formats, and the browser is told to forbid any"
    page = own(made())
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", page)
    assert "default-src 'none'" in page and "connect-src" not in page


def test_text_cannot_end_the_page_early():
    "What a deposit or a study is called is shown, not run"
    page = made()
    assert "a </script> b" not in page and "a <\\/script> b" in page
    assert "<title>&lt;Toy&gt; &amp; co: MVT</title>" in page


def test_a_page_says_what_the_numbers_mean():
    "A rank, unless calibration was checked; the model's facts below"
    plain = made(facts={"seed": 7, "preset": "demo"})
    assert "a rank" in plain and "seed 7" in plain and "CC0" in plain
    checked = made(facts={"calibration": "blocks"})
    assert "calibrated probability" in checked and "a rank" not in own(checked)
