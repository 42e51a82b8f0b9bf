"""A stored result becomes a page that has every figure and needs nothing else."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import msgspec
import pytest

from bench import page, stored
from bench.plots import Bar, bars
from bench.process import BenchError
from bench.report import summary
from bench.rows import all_rows
from bench.stored import Run

from .runs import bench

# A file of the first form, as the bench wrote it.
TRANSCRIPT = Path(__file__).with_name("transcript.json")
_VOID = frozenset({"meta", "br", "img", "input", "link"})


class _Page(HTMLParser):
    """The text of a page, its references, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.references: list[str] = []
        self.anchors: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "img")
        for name, value in attrs:
            if name in ("href", "src", "srcset", "action", "xlink:href"):
                self.references.append(value or "")
            if name == "id":
                self.anchors.append(value or "")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def _curves(run: Run) -> Run:
    """The same run with a curve."""
    points = {f"p99_us@{size}": 3.5 * size for size in (0, 1, 10, 50, 1_000, 10_000)}
    run.rounds["curve-upstreams"] = {name: [points, points] for name in ("nginx", "relay")}
    return run


def test_the_page_has_every_figure_of_the_summary_as_text() -> None:
    run = stored.read(TRANSCRIPT)
    text = " ".join(_Page(page.render(run)).words)
    rows = {f"{row.scenario}.{row.figure}": row for row in all_rows(run.settings)}
    figures = summary(list(rows.values()), run.rounds)
    assert len(figures) > 10
    for name, entry in figures.items():
        row = rows[name]
        for rival in run.rounds[row.scenario]:
            if entry.get(rival) is not None:
                assert f"{entry[rival]:,.{row.digits}f}" in text, (name, rival)


def test_the_page_is_complete_and_refers_to_itself_alone() -> None:
    html = page.render(_curves(stored.read(TRANSCRIPT)))
    parsed = _Page(html)
    assert parsed.open == []
    assert parsed.references
    assert {one.removeprefix("#") for one in parsed.references} <= set(parsed.anchors)
    assert not re.search(r"url\(|@import|https?://(?!127\.0\.0\.1)", html)


def test_the_page_has_the_points_of_a_curve_and_its_exponent() -> None:
    text = " ".join(_Page(page.render(_curves(stored.read(TRANSCRIPT)))).words)
    assert "curve-upstreams" in text
    assert "35,000" in text
    assert "n^1.00 ±0.00" in text
    assert "Others" not in text


def test_the_page_escapes_names_versions_and_settings() -> None:
    run = stored.read(TRANSCRIPT)
    run.versions = {**run.versions, "relay": "<b>1</b> & more"}
    html = page.render(run)
    assert "&lt;b&gt;1&lt;/b&gt; &amp; more" in html
    assert "# &lt;as written&gt;" in html


def test_the_plots_of_the_readme_are_images_for_light_and_dark(tmp_path: Path) -> None:
    run = stored.read(TRANSCRIPT)
    written = page.write(run, tmp_path / "one.json")
    assert [path.name for path in written] == ["one.html", "one-request.svg", "one-event.svg"]
    for path, scenario in zip(written[1:], ("json", "sse"), strict=True):
        image = ElementTree.parse(path).getroot()
        assert image.tag == "{http://www.w3.org/2000/svg}svg"
        text = "".join(image.itertext())
        assert "prefers-color-scheme:dark" in text
        for rounds in run.rounds[scenario].values():
            assert f"{median(one['cpu_us'] for one in rounds):.1f}" in text


def test_a_plot_of_very_different_values_has_a_logarithmic_axis() -> None:
    run = stored.read(TRANSCRIPT)
    run.rounds["json"]["slow"] = [{"cpu_us": 6_000.0}, {"cpu_us": 7_000.0}]
    run.foreign = ["slow"]
    html = page.render(run)
    assert "less is better, logarithmic" in html
    assert "6,500.0" in html


def test_a_long_title_and_its_note_have_a_line_each() -> None:
    found = [Bar("relay", "relay", 1.0, 1.0, 1.0, "1")]
    drawn = {}
    for title in ("CPU", "requests/s with p99 ≤ 1 ms, one core"):
        texts = ElementTree.fromstring(bars(title, "more is better", found)).iter("text")
        drawn[title] = {text.text: float(text.attrib["y"]) for text in texts}
    short, long = drawn.values()
    assert short["more is better"] == short["CPU"]
    assert long["requests/s with p99 ≤ 1 ms, one core"] < long["more is better"] < long["relay"]
    assert long["relay"] - short["relay"] == long["more is better"] - short["more is better"]


def test_a_size_is_shown_with_all_its_digits() -> None:
    run = stored.read(TRANSCRIPT)
    run.settings = replace(run.settings, largest=10_000_000)
    assert "10,000,000" in _Page(page.render(run)).words


def test_a_run_is_the_same_after_it_was_written(tmp_path: Path) -> None:
    run = _curves(stored.read(TRANSCRIPT))
    run.format, run.command, run.foreign = stored.FORMAT, "python -m bench", ["envoy"]
    path = tmp_path / "again.json"
    stored.write(path, run, {"summary": {}, "notes": ["one"]})
    assert stored.read(path) == run


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no result of the bench"),
        (b"{}", "is no result of the bench"),
        (b"[1]", "is no result of the bench"),
        (b"\xff\xfe", "is no result of the bench"),
        (b'{"format": 99}', "has format 99, and this bench knows 2 at most"),
        (None, "cannot be read: No such file"),
    ],
    ids=["empty", "no run", "list", "no text", "newer", "missing"],
)
def test_a_file_that_is_no_result_is_named(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BenchError, match=words) as caught:
        stored.read(path)
    assert str(path) in str(caught.value)


def test_a_place_without_a_folder_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.json", tmp_path):
        done = bench("--rival", "relay", "--only", "ready", "--json", str(path))
        assert done.returncode != 0
        assert "ready 1" not in done.stdout
        assert str(path) in (done.stdout + done.stderr).replace("\n", "")


def test_a_stored_result_is_shown_again(tmp_path: Path) -> None:
    shown = tmp_path / "shown.html"
    done = bench("report", str(TRANSCRIPT), "--page", str(shown), "--compare", str(TRANSCRIPT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPU per request, µs" in done.stdout
    assert "none is worse than before" in done.stdout
    assert shown.read_text().startswith("<!doctype html>")


def test_a_result_is_shown_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench("report", str(TRANSCRIPT), "--page", str(tmp_path / "file" / "a.html"))
    assert done.returncode == 1
    assert "CPU per request, µs" in done.stdout
    assert "cannot be written" in done.stdout.replace("\n", " ")


def test_a_scenario_without_a_plot_shows_its_table() -> None:
    run = stored.read(TRANSCRIPT)
    run.rounds["quota"] = {"relay": [{"admitted": 40, "turned_away": 960, "off_by": 0}]}
    card = page.render(run).partition('id="quota"')[2].partition("</section>")[0]
    assert "<details open>" in card
    assert "<svg" not in card


def test_memory_in_steady_work_is_beside_that_at_rest() -> None:
    run = stored.read(TRANSCRIPT)
    run.rounds["json"]["relay"] = [{"rss_mib": 61.5}]
    run.rounds["memory"] = {"relay": [{"base_mib": 40.0, "stream_kib": 20.0}]}
    text = " ".join(" ".join(_Page(page.render(run)).words).split())
    assert text.index("Memory at rest") < text.index("Memory in steady work")
    assert "61.5" in text


def test_an_unknown_file_ends_the_report_with_its_name(tmp_path: Path) -> None:
    done = bench("report", str(tmp_path / "nothing.json"))
    assert done.returncode == 1
    assert "nothing.json cannot be read" in done.stdout.replace("\n", "")


def test_settings_of_another_version_are_read() -> None:
    document = msgspec.json.decode(TRANSCRIPT.read_bytes())
    document["settings"]["of_a_later_version"] = 7
    del document["settings"]["bodies"]
    run = msgspec.convert(document, Run)
    assert run.settings.bodies
