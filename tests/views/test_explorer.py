"""The explorer's pages, and what its guard refuses."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fastapi.testclient import TestClient

from conceptatlas.base.errors import InputError
from conceptatlas.base.kinds import LABELS, RANKING
from conceptatlas.evidence import FeatureRef
from conceptatlas.ranking import Ranking
from conceptatlas.ranking.legends import legend, legend_lines
from conceptatlas.views.explorer import Library, NetworkPolicy, create_app
from conceptatlas.views.explorer.live import Steered, Tried
from conceptatlas.views.explorer.server import free_port
from conceptatlas.views.firing import firing_of
from conceptatlas.views.study_folder import Study
from tests.helpers.artefacts import seal
from tests.helpers.cli import invoke
from tests.views.test_report import Page

ORIGIN = {"origin": "http://127.0.0.1:8765"}
SLUG = "blocks.2.hook_resid_post__l0_12"


@pytest.fixture
def folder(study: Path, tmp_path: Path) -> Path:
    """A copy of the study that may be written."""
    return Path(shutil.copytree(study, tmp_path / "study"))


def client_of(folder: Path, policy: NetworkPolicy | None = None) -> TestClient:
    policy = policy or NetworkPolicy.local(8765)
    app = create_app(Library.open(folder), policy)
    return TestClient(app, base_url=f"http://127.0.0.1:{policy.port}", raise_server_exceptions=False)


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(folder) as found:
        yield found


def rows_of(text: str) -> list[int]:
    return [int(index) for index in re.findall(r'<th scope="row" class="n"><a href="[^"]*">#(\d+)</a>', text)]


def test_the_start_leads_to_the_study(client: TestClient) -> None:
    reply = client.get("/")
    assert reply.status_code == 200
    assert reply.url.path == "/s/study/"
    page = Page(reply.text)
    assert not page.open
    assert "dishonesty" in page.text
    assert "Where it emerges" in page.text
    assert "builtin:dishonesty" in page.text


def test_a_folder_of_studies_is_a_list(study: Path, strict_study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "all/one")
    shutil.copytree(strict_study, tmp_path / "all/two")
    (tmp_path / "all/nothing").mkdir()
    with client_of(tmp_path / "all") as client:
        text = client.get("/").text
        assert 'href="/s/one/"' in text
        assert 'href="/s/two/"' in text
        assert "nothing" not in text
        assert "No feature passes the classic filters" in client.get("/s/two/").text


def test_the_table_sorts_filters_searches_and_pages(client: TestClient, folder: Path) -> None:
    table = pl.read_parquet(folder / "rank/all_features.parquet")
    shown = rows_of(client.get("/s/study/features").text)
    best = table.sort("interpretability_score", descending=True, nulls_last=True, maintain_order=True)
    assert shown == best["feature_id"].head(50).to_list()
    up = rows_of(client.get("/s/study/features", params={"sort": "auroc_holdout", "dir": "asc"}).text)
    least = table.sort("auroc_holdout", nulls_last=True, maintain_order=True)
    assert up == least["feature_id"].head(50).to_list()
    second = rows_of(client.get("/s/study/features", params={"page": 2, "size": 25}).text)
    assert second == best["feature_id"].slice(25, 25).to_list()
    few = rows_of(client.get("/s/study/features", params={"layer": 3, "min_auroc_holdout": 0.8}).text)
    wanted = best.filter((pl.col("layer") == 3) & (pl.col("auroc_holdout") >= 0.8))
    assert few == wanted["feature_id"].to_list()
    assert set(rows_of(client.get("/s/study/features", params={"q": "#20"}).text)) == {20}
    assert len(rows_of(client.get("/s/study/features", params={"q": "layer_2/", "size": 200}).text)) == (
        table.filter(pl.col("layer") == 2).height
    )
    kept = rows_of(client.get("/s/study/features", params={"kept": 1}).text)
    assert len(kept) == table["kept"].sum()


def test_the_state_of_the_table_stands_in_every_link(client: TestClient) -> None:
    text = client.get("/s/study/features", params={"layer": 2, "col": ["auroc", "tpr"], "size": 25}).text
    assert "AUROC discovery</a>" in text
    assert "Pearson hold-out</a>" not in text
    following = re.search(r'rel="next" href="([^"]+)"', text)
    assert following is not None
    address = following.group(1).replace("&amp;", "&")
    assert "layer=2" in address
    assert "col=auroc" in address
    assert "page=2" in address
    reply = client.get("/s/study/features" + address)
    assert "page 2" in Page(reply.text).text


def test_an_empty_table_says_what_to_do(client: TestClient) -> None:
    text = client.get("/s/study/features", params={"min_auroc": 2}).text
    assert "No feature is like that." in text
    assert "clear every filter" in text


def test_a_table_can_be_exported(client: TestClient, folder: Path) -> None:
    reply = client.get("/s/study/features.csv", params={"layer": 1, "sort": "auroc"})
    assert reply.headers["content-type"].startswith("text/csv")
    found = pl.read_csv(io.BytesIO(reply.content))
    table = pl.read_parquet(folder / "rank/all_features.parquet").filter(pl.col("layer") == 1)
    assert found.height == table.height
    assert found["auroc"].drop_nulls().is_sorted(descending=True)
    assert {"sae_id", "slug", "p_max", "mean_label_3"} <= set(found.columns)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sort=nothing", "There is no column"),
        ("layer=two", "layer is"),
        ("page=x", "page is"),
        ("min_auroc=much", "min_auroc is"),
        ("max_auroc=nan", "give a finite number"),
        ("col=passwords", "There is no column"),
    ],
)
def test_a_bad_query_is_refused_in_words(client: TestClient, query: str, words: str) -> None:
    reply = client.get(f"/s/study/features?{query}")
    assert reply.status_code == 400
    assert words in Page(reply.text).text


def test_a_feature_has_a_stable_address_with_everything_known(client: TestClient) -> None:
    reply = client.get(f"/s/study/feature/{SLUG}/3")
    page = Page(reply.text)
    assert reply.status_code == 200
    assert not page.open
    for words in ("Layer 2, feature 3", "Distribution by grade", "Along the sentence", "Strongest examples by grade",
                  "A sample from each decile", "hold-out AUROC", "silent on", "Notes", "Steer"):  # fmt: skip
        assert words in page.text, words


def test_the_neighbours_are_those_of_the_table(client: TestClient) -> None:
    text = client.get("/s/study/features", params={"layer": 2, "sort": "auroc", "size": 25}).text
    order = rows_of(text)
    links = re.findall(r'<th scope="row" class="n"><a href="([^"]*)">', text)
    page = client.get(links[3].replace("&amp;", "&")).text
    assert f"/feature/{SLUG}/{order[2]}?" in re.search(r'rel="prev" href="([^"]+)"', page).group(1)
    assert f"/feature/{SLUG}/{order[4]}?" in re.search(r'rel="next" href="([^"]+)"', page).group(1)
    assert "4 of 4" in page


def test_a_feature_that_never_fires_says_so(folder: Path) -> None:
    indptr = np.load(folder / f"rec/features/{SLUG}/indptr.npy")
    silent = np.flatnonzero(np.diff(indptr) == 0)
    table = pl.read_parquet(folder / "rank/all_features.parquet")
    path = folder / "rank/all_features.parquet"
    with client_of(folder) as client:
        if not len(silent):
            table.filter(~((pl.col("slug") == SLUG) & (pl.col("feature_id") == 5))).write_parquet(path)
            seal(RANKING, folder / "rank")
        index = int(silent[0]) if len(silent) else 5
        reply = client.get(f"/s/study/feature/{SLUG}/{index}")
    assert reply.status_code == 200
    assert "It fires on" in reply.text
    assert "The ranking has no figures for it." in reply.text
    assert "never fires here" not in reply.text
    if len(silent):
        assert "It fires on none of the" in reply.text


def test_a_feature_that_fires_only_where_nothing_is_scored_says_both(folder: Path) -> None:
    """Its column: two rows of the first item, neither its last; the score is the last row."""
    opened = Study.open(folder)
    assert opened.recording is not None
    acts = np.zeros(opened.recording.n_rows, dtype=np.float32)
    acts[[0, 1]] = 2.5
    opened.column = lambda feature: acts
    found = firing_of(opened, FeatureRef(SLUG, "x", 2, 14.0, 5))
    assert found.words == (
        f"It fires on 2 of the {len(acts):,} recorded rows (tokens); an item's score is its last row, and that is not zero "
        "on 0 of 120 items."
    )
    assert "does not fire in the rows that were scored" in found.why
    acts[:] = 1.0
    assert "the same on every discovery item" in firing_of(opened, FeatureRef(SLUG, "x", 2, 14.0, 5)).why


def test_the_counts_are_the_same_in_the_explorer_the_report_and_the_terminal(client: TestClient, folder: Path) -> None:
    ranking = Ranking.open(folder / "rank")
    table = Page(client.get("/s/study/features").text).text
    head = Page(client.get("/s/study/").text).text
    shown = " ".join(invoke("show", folder / "rank").stdout.split())
    found = ranking.facts["n_discovery"]
    beyond, ends = ranking.facts["counts"]["beyond_chance"], sum(ranking.facts["holdout_items"][g] for g in "03")
    assert [words for _, words in ranking.counted()] == [
        "features searched", "fire on some recorded row", "fire in the rows scored (final) of the 120 items",
        f"tested for q: active on 5 or more of the {found} discovery items",
        f"exceed chance on the {found} discovery items (p_max ≤ 0.05)",
        f"of those {beyond} hold on the {ends} held-out items of grades 3 and 0",
        f"pass the classic filters on the {found} discovery items",
    ]  # fmt: skip
    for count, words in ranking.counted():
        assert f"{count:,} {words}" in table
        assert f"{count:,} {words}" in shown
        assert f"{count:,}{words}" in head  # a tile: the figure, then the words
    for line in legend_lines(ranking):
        assert line in head
        assert line in table
    for name, said in legend(ranking).items():
        assert f"{name}: {said}." in shown


def test_features_are_found_by_their_labels(folder: Path) -> None:
    entry = {"feature_index": 20, "slug": SLUG, "label": "<b>Lies</b> about money", "score": 1.0}
    (folder / "label").mkdir()
    (folder / "label/feature_labels.json").write_text(json.dumps({"num_features": 1, "features": [entry]}))
    seal(LABELS, folder / "label")
    with client_of(folder) as client:
        text = client.get("/s/study/features", params={"q": "lies about"}).text
        assert rows_of(text) == []  # the tags are part of the text
        text = client.get("/s/study/features", params={"q": "LIES</b> about"}).text
        assert rows_of(text) == [20]
        assert "&lt;b&gt;Lies&lt;/b&gt; about money" in text
        assert "<b>Lies" not in client.get(f"/s/study/feature/{SLUG}/20").text


def test_stars_and_notes_are_kept_in_a_file(client: TestClient, folder: Path) -> None:
    address = f"/s/study/feature/{SLUG}/3"
    assert client.post(f"{address}/note", data={"star": "1"}, headers=ORIGIN).status_code == 200
    assert client.post(f"{address}/note", data={"save": "1", "note": "reads <b>lies</b>"}, headers=ORIGIN).is_success
    kept = json.loads((folder / "notes.json").read_text())
    assert kept["features"] == {f"{SLUG}/3": {"star": True, "note": "reads <b>lies</b>"}}
    text = client.get(address).text
    assert "reads &lt;b&gt;lies&lt;/b&gt;" in text
    assert 'aria-pressed="true"' in text
    assert rows_of(client.get("/s/study/features?starred=1").text) == [3]
    with client_of(folder) as again:  # a new server finds them
        assert rows_of(again.get("/s/study/features?starred=1").text) == [3]
    client.post(f"{address}/note", data={"star": "0"}, headers=ORIGIN)
    client.post(f"{address}/note", data={"save": "1", "note": ""}, headers=ORIGIN)
    assert json.loads((folder / "notes.json").read_text())["features"] == {}


def test_a_note_that_is_too_long_or_of_no_feature_is_refused(client: TestClient, folder: Path) -> None:
    address = f"/s/study/feature/{SLUG}/3/note"
    assert client.post(address, data={"save": "1", "note": "x" * 10_001}, headers=ORIGIN).status_code == 400
    assert client.post("/s/study/feature/nothing/3/note", data={"star": "1"}, headers=ORIGIN).status_code == 404
    assert client.post(f"/s/study/feature/{SLUG}/99999/note", data={"star": "1"}, headers=ORIGIN).status_code == 404
    assert not (folder / "notes.json").exists()


def test_sentences_are_searched_and_shown_over_their_tokens(client: TestClient) -> None:
    text = client.get("/s/study/sentences", params={"q": "swore", "label": 3}).text
    assert "/s/study/sentence/3" in text
    assert "/s/study/sentence/0" not in text
    page = Page(client.get("/s/study/sentence/3").text)
    assert not page.open
    assert "The top features over its tokens" in page.text
    assert client.get("/s/study/sentence/5000").status_code == 404
    assert "No sentence has that." in client.get("/s/study/sentences?q=zzz").text


def test_two_features_stand_side_by_side(client: TestClient) -> None:
    left, right = f"study/{SLUG}/3", f"study/{SLUG}/20"
    page = Page(client.get("/compare", params={"a": left, "b": right}).text)
    assert "Layer 2, feature 3" in page.text
    assert "Layer 2, feature 20" in page.text
    assert "their scores correlate with" in page.text
    assert "Choose two features." in client.get("/compare").text
    assert client.get("/compare?a=nonsense").status_code == 400
    assert client.get("/compare?a=study/x/y").status_code == 400
    assert client.get("/compare?a=other/x/1").status_code == 404


def test_two_concepts_stand_side_by_side(study: Path, tmp_path: Path) -> None:
    for key in ("one", "two"):
        shutil.copytree(study, tmp_path / key)
    with client_of(tmp_path) as client:
        assert "Compare concepts" in client.get("/compare").text
        page = Page(client.get("/compare?a=one&b=two").text)
        assert not page.open
        kept = pl.read_parquet(study / "rank/all_features.parquet")["kept"].sum()
        assert f"{kept} of {kept} features passed the filters of both." in page.text


class FakeEngine:
    """Fires on every token, by its length."""

    def activations(self, text: str, features: tuple[FeatureRef, ...], say) -> Tried:
        say("thinking")
        if "fail" in text:
            raise InputError("The model is not here; put it into a folder.")
        if "crash" in text:
            raise ZeroDivisionError("oh")
        pieces = tuple(re.findall(r"\s*\S+", text))
        acts = np.array([[float(len(piece)) for piece in pieces]] * len(features), dtype=np.float32)
        return Tried(pieces, acts, features)

    def steered(self, prompt: str, feature: FeatureRef, dose: float, say) -> Steered:
        return Steered(prompt, " before", f" after {dose:g}", feature, dose)


@pytest.fixture
def live(folder: Path) -> Iterator[TestClient]:
    library = Library.open(folder)
    library.shelf("study").live.engine = FakeEngine()
    app = create_app(library, NetworkPolicy.local(8765))
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        yield client


def finished(client: TestClient, url: str) -> str:
    for _ in range(200):
        text = client.get(url).text
        if "http-equiv" not in text:
            return text
        time.sleep(0.02)
    raise AssertionError("the job never ended")


def test_a_sentence_of_ones_own_heats_up(live: TestClient) -> None:
    assert "Show activations" in live.get("/s/study/try").text
    reply = live.post(
        "/s/study/try", data={"text": "<script>he</script> lied", "features": f"{SLUG}/3"}, headers=ORIGIN
    )
    page = Page(finished(live, str(reply.url)))
    assert "<script>he</script> lied" in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1  # the explorer's own
    assert "layer 2 #3" in page.text


def test_what_the_model_cannot_do_is_said(live: TestClient) -> None:
    for text, words in (("fail", "put it into a folder"), ("crash", "Unexpected ZeroDivisionError: oh")):
        reply = live.post("/s/study/try", data={"text": text}, headers=ORIGIN)
        assert words in finished(live, str(reply.url))
    assert live.post("/s/study/try", data={"text": "  "}, headers=ORIGIN).status_code == 400
    assert live.post("/s/study/try", data={"text": "x" * 4001}, headers=ORIGIN).status_code == 400
    assert live.post("/s/study/try", data={"text": "x", "features": "y"}, headers=ORIGIN).status_code == 400
    assert live.get("/s/study/job/999").status_code == 404


def test_steering_shows_with_and_without(live: TestClient) -> None:
    form = {"prompt": "He said", "feature": f"{SLUG}/3", "dose": "6"}
    text = finished(live, str(live.post("/s/study/steer", data=form, headers=ORIGIN).url))
    assert "before" in text
    assert "after 6" in text
    for dose in ("100", "much"):
        assert live.post("/s/study/steer", data={**form, "dose": dose}, headers=ORIGIN).status_code == 400


def test_hostile_text_is_shown_as_text(nasty_study: Path) -> None:
    with client_of(nasty_study) as client:
        key = nasty_study.name
        for address in ("", "features", "sentences", "sentence/0", "sentence/2", "sentence/3", f"feature/{SLUG}/3"):
            page = Page(client.get(f"/s/{key}/{address}").text)
            assert [tag for tag, _ in page.tags].count("script") == 1, address
            assert "img" not in {tag for tag, _ in page.tags}
            for _, attrs in page.tags:
                assert not [name for name in attrs if name.startswith("on") or name == "style"]
                assert not (attrs.get("href") or "").lower().startswith("javascript:")
        assert "{{7*7}}" in Page(client.get(f"/s/{key}/sentence/1").text).text
        echoed = client.get(f"/s/{key}/features", params={"q": '"><script>alert(1)</script>'}).text
        assert "<script>alert(1)" not in echoed


# The guard -------------------------------------------------------------------------------------------------------


def test_every_answer_forbids_what_the_pages_do_not_need(client: TestClient) -> None:
    for address in ("/s/study/", "/static/style.css", "/nowhere"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "127.0.0.1.evil.example:8765", "", "localhost"])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/s/study/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_our_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/s/study/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1:1", "http://localhost:8765"],
)
def test_a_change_from_elsewhere_is_refused(client: TestClient, folder: Path, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    reply = client.post(f"/s/study/feature/{SLUG}/3/note", data={"star": "1"}, headers=headers)
    assert reply.status_code == 403
    assert not (folder / "notes.json").exists()


def test_a_page_of_another_server_may_not_even_read(client: TestClient) -> None:
    assert client.get("/s/study/", headers={"origin": "http://evil.example"}).status_code == 403


def test_a_large_body_is_refused_whether_or_not_it_says_so(client: TestClient) -> None:
    address = f"/s/study/feature/{SLUG}/3/note"
    assert client.post(address, content=b"x" * 10_000_000, headers=ORIGIN).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            yield b"x" * 50_000

    assert client.post(address, content=pieces(), headers=ORIGIN).status_code == 413
    for length in ("-1", "many"):
        assert client.get("/s/study/", headers={"content-length": length}).status_code == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    assert client.request(method, "/s/study/").status_code == 405


@pytest.mark.parametrize(
    "address",
    [
        "/static/..%2f..%2fapp.py", "/static/%2e%2e/html.py", "/static//etc/passwd", "/s/..%2f..%2fetc/",
        "/s/study/feature/..%2f..%2frec/3", "/s/%2e%2e/features", "/s/study/sentence/..%2f3", "/docs", "/openapi.json",
        "/s/study/job/-1", "/s/study/sentence/-1", "/s/study/feature/x/abc", "/%00", "/s/study/feature/%00/1",
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_study(client: TestClient, address: str) -> None:
    reply = client.get(address)
    assert reply.status_code in (400, 404, 422)
    assert "root:" not in reply.text


def test_links_out_of_the_study_are_not_followed(study: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    shutil.copytree(study / "rank", tmp_path / "s/rank")
    (tmp_path / "s/rec").symlink_to(study / "rec")
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"options": {"password": "swordfish"}, "written": "swordfish"}))
    (tmp_path / "s/rank/run.json").unlink()
    (tmp_path / "s/rank/run.json").symlink_to(secret)
    (tmp_path / "s/notes.json").symlink_to(secret)
    library = Library.open(tmp_path / "s")
    assert "rec" not in library.shelf("s").study.stages
    assert library.shelf("s").study.run("rank") == {}
    with client_of(tmp_path / "s") as client:
        assert "swordfish" not in client.get("/s/s/").text
        reply = client.get("/s/s/features")
        assert reply.status_code == 400
        assert "swordfish" not in reply.text
    assert secret.read_text().count("swordfish") == 2


def test_two_hundred_requests_at_once_are_served(client: TestClient) -> None:
    addresses = ["/s/study/", "/s/study/features", f"/s/study/feature/{SLUG}/3", "/s/study/sentence/3"] * 50
    with ThreadPoolExecutor(32) as pool:
        codes = list(pool.map(lambda address: client.get(address).status_code, addresses))
    assert set(codes) == {200}


def test_elsewhere_than_this_machine_a_token_is_asked_for(folder: Path) -> None:
    policy = NetworkPolicy.unsafe("0.0.0.0", 8765)
    assert policy.token is not None
    assert policy.token in policy.url
    assert policy.token not in repr(policy)
    with client_of(folder, policy) as client:
        assert client.get("/s/study/").status_code == 403
        assert client.get("/s/study/?token=wrong").status_code == 403
        assert client.get("/s/study/", headers={"cookie": "conceptatlas=wrong"}).status_code == 403
        reply = client.get(f"/s/study/features?layer=2&token={policy.token}")
        assert reply.status_code == 200
        assert policy.token not in str(reply.url)  # moved into a cookie
        assert reply.url.params["layer"] == "2"
        cookie = reply.history[0].headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert client.get("/s/study/").status_code == 200  # the cookie is enough from here
        elsewhere = client.get(f"//evil.example/?token={policy.token}", follow_redirects=False)
        assert not (elsewhere.headers.get("location") or "/").startswith("//")


def test_a_port_that_is_taken_is_said() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="give another --port"):
            free_port("127.0.0.1", taken.getsockname()[1])
    assert free_port("127.0.0.1", 0) > 0


def test_the_command_refuses_a_folder_without_a_study(tmp_path: Path) -> None:
    outcome = invoke("explore", tmp_path)
    assert outcome.code == 2
    assert "holds no study" in outcome.stderr
    assert not list(tmp_path.iterdir())
