import pytest
from trackd.api.paths import project_of, split_run
from trackd_proto import links


@pytest.mark.parametrize(
    "path",
    ["p/r", "/p/r", "e/p/r", "/e/p/r", "p/runs/r", "e/p/runs/r", "http://127.0.0.1:5000/p/p/r/r#ticket=x", "https://x/e/p/runs/r"],
)  # fmt: skip
def test_every_form_names_the_run(path: str) -> None:
    assert split_run(path) == ("p", "r")


def test_a_link_of_the_dashboard_comes_back() -> None:
    assert split_run("http://127.0.0.1:1" + links.run_path("my project é", "a b")) == ("my project é", "a b")
    assert project_of("http://127.0.0.1:1" + links.project_path("my project é")) == "my project é"


def test_an_id_alone_needs_a_default_project() -> None:
    assert split_run("r", "p") == ("p", "r")
    with pytest.raises(ValueError, match="project/run_id"):
        split_run("r")


@pytest.mark.parametrize("bad", ["", "/", "a/b/c/d", "a/b/c/d/e"])
def test_other_texts_are_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        split_run(bad, "p")


def test_projects() -> None:
    assert project_of("p") == project_of("e/p") == project_of("/p/") == "p"
    for bad in ("", "a/b/c"):
        with pytest.raises(ValueError):
            project_of(bad)
    with pytest.raises(TypeError):
        project_of(1)  # type: ignore[arg-type]
