"""Nothing secret, and nothing that steers a terminal, is in what is printed or stored."""

import pytest

from equigrid.grid.text import holds_credentials, printable, redacted

KEY, SECRET = "AKIAEXAMPLE", "sEcReT+x/y=z"
WITH = [
    f"s3://{KEY}:{SECRET}@bucket/prefix",
    f"s3://{KEY}@bucket/prefix",
    f"s3://bucket/x?region=eu&endpoint_override=http://{KEY}:{SECRET}@10.0.0.1:9000&scheme=http",
    f"s3://bucket/x?endpoint_override=http%3A%2F%2F{KEY}%3AsEcReT%40host%3A9000",
    f"s3://bucket/x?endpoint_override={KEY}:sEcReT@host:9000",
    "s3://bucket/x?secret_key=sEcReT", f"s3://bucket/x?access_key={KEY}&region=eu",
    "abfs://c@a.dfs.core.windows.net/x?account_key=sEcReT", "abfs://c@a.dfs/x?sas=sEcReT",
    "https://a.blob/x?sv=2024&sig=sEcReT&se=2026", "gs://user:sEcReT@bucket/x",
    "https://user:sEcReT@proxy:3128/", "S3://AKIAEXAMPLE:sEcReT@bucket",
    "hdfs://user:sEcReT@namenode:8020/x", "s3://b/x?SessionToken=sEcReT;x=1",
]  # fmt: skip
WITHOUT = [
    "s3://bucket/prefix", "gs://anonymous@bucket/x", "abfs://c@a.dfs.core.windows.net/x",
    "s3://bucket/x?region=eu&scheme=http&endpoint_override=127.0.0.1:9000",
    "s3://bucket/x?endpoint_override=http%3A%2F%2Fhost%3A9000", "hf://datasets/owner/name@main/x",
    "http://host:8265/x@y", "file:///home/me/data", "/home/me/key=1/secret", "me@host:/x",
]  # fmt: skip


@pytest.mark.parametrize("uri", WITH)
@pytest.mark.parametrize("frame", ["{}", "cannot read '{}': no", '{{"uri": "{}"}}', "a {}\nb"])
def test_credentials_of_a_uri_are_hidden_wherever_it_stands(uri, frame):
    text = redacted(frame.format(uri))
    assert "***" in text
    assert not any(word in text for word in ("sEcReT", KEY, "x/y=z"))
    assert text.startswith(frame.partition("{}")[0].replace("{{", "{"))
    if frame.startswith("cannot"):
        assert text.endswith("': no")
    assert holds_credentials(uri)


@pytest.mark.parametrize("uri", WITHOUT)
def test_other_text_stays(uri):
    assert redacted(f"read {uri}: no") == f"read {uri}: no"
    assert not holds_credentials(uri)


def test_the_environments_secrets_are_hidden_and_its_paths_are_not(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("HF_TOKEN", "hf_aaaaaaaaaa")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "short")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/.ray/token")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "1")
    text = redacted("0123456789abcdef hf_aaaaaaaaaa short /home/me/.ray/token 1")
    assert text == "*** *** *** /home/me/.ray/token 1"


def test_what_steers_a_terminal_is_written_out():
    hostile = "a\x1b]0;title\x07b\x1b[31mred\rover\x08\x9b2J\u202egnp.\u2066\x00\x7f\ud800"
    text = printable(hostile)
    assert text.isprintable()
    assert text.startswith(r"a\x1b]0;title\x07b\x1b[31mred\rover\x08\x9b2J\u202egnp.\u2066\x00")
    kept = "a [/b] ünï 日本 ×→ τ\ttab\nline"
    assert printable(kept) == kept
