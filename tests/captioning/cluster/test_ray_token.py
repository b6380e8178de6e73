"""Ray's token is shown to a cluster wherever there is one."""

from kvtune.captioning.cluster.ray_token import show_token


def shown(**environment):
    show_token(environment)
    return environment.get("RAY_AUTH_MODE")


def test_a_token_is_shown_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shown() is None
    assert shown(RAY_AUTH_TOKEN="") is None
    assert shown(RAY_AUTH_TOKEN="x") == shown(RAY_AUTH_TOKEN_PATH="/token") == "token"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    assert shown() == "token"
    assert shown(RAY_AUTH_MODE="disabled") == "disabled"
