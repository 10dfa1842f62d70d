"""Every setting of the node is looked at before anything listens: its type, its range, in one line with its name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_sasm.cli.main import main
from monai_sasm.node import service
from monai_sasm.node.config import DicomPeer, NodeConfig, WebPeer, config_from
from monai_sasm.node.restorer import SeriesRestorer
from tests.toy_bundles import write_gain_expert

DICOM = {"ae_title": "PACS", "host": "pacs.example", "port": 104}
GOOD: dict[str, Any] = {"spool": "spool", "destinations": {"pacs": DICOM}, "allow": ["CT1"]}
PLAIN = [one.name for one in fields(NodeConfig) if one.name not in ("destinations", "allow", "restore")]
DICOM_FIELDS = [one.name for one in fields(DicomPeer) if one.name != "name"]
WEB_FIELDS = [one.name for one in fields(WebPeer) if one.name != "name"]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run ``sasm node`` with these settings; gives exit code and messages. It must not come to listening."""
    monkeypatch.setattr(service, "Node", lambda *arguments, **keywords: pytest.fail("it listens"))

    def run(settings: dict[str, Any], *arguments: str) -> tuple[int, str]:
        (tmp_path / "node.yaml").write_text(yaml.safe_dump(settings))
        with pytest.raises(SystemExit) as ended:
            main(["node", "--config", str(tmp_path / "node.yaml"), *arguments])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *(({name: [["many"]]}, f"{name} must be ") for name in PLAIN),
        *(({"destinations": {"pacs": DICOM | {name: ["x"]}}}, f"pacs: {name} must be") for name in DICOM_FIELDS),
        *(
            ({"destinations": {"web": {"url": "https://pacs/x", name: ["x"]}}}, f"web: {name} must be")
            for name in WEB_FIELDS
        ),
        ({"destinations": "foo"}, "destinations must be a mapping, NAME: VALUE, got 'foo'"),
        ({"destinations": ["foo"]}, "destinations must be a mapping"),
        ({"destinations": {"pacs": 7}}, "pacs: a destination is AE@HOST:PORT, http(s)://... or a mapping, got 7"),
        ({"destinations": {"pacs": {1: 2, "host": "a"}}}, "pacs: a destination has"),
        ({"destinations": {"pacs": DICOM | {"port": "abc"}}}, "pacs: port must be a whole number, got 'abc'"),
        ({"destinations": {"pacs": DICOM | {"port": 0}}}, "pacs: port must be from 1 to 65535, got 0"),
        ({"destinations": {"pacs": DICOM | {"port": True}}}, "pacs: port must be a whole number"),
        ({"destinations": {"pacs": DICOM | {"host": ""}}}, "pacs: host must be"),
        ({"destinations": {"web": "https://"}}, "web: url must be http(s)://HOST"),
        ({"destinations": {"web": "http://pacs:99999/x"}}, "web: url must be http(s)://HOST"),
        ({"destinations": {"web": "http://[::1/x"}}, "web: url must be http(s)://HOST"),
        ({"destinations": {"web": {"url": "ftp://pacs/x"}}}, "web: url must be http(s)://HOST"),
        ({"send_to": 7}, "send_to must be a list of texts, got 7"),
        ({"allow": 7}, "allow must be a list of texts"),
        ({"allow": [7]}, "allow must be a list of texts"),
        ({"allow": ["CT1@scanner"]}, "allow: 'CT1@scanner' needs an IP address after the @"),
        ({"keep_days": "many"}, "keep_days must be a finite number, got 'many'"),
        ({"keep_days": float("nan")}, "keep_days must be a finite number, got nan"),
        ({"port": "eleven"}, "port must be a whole number, got 'eleven'"),
        ({"port": None}, "port must be a whole number, got nothing"),
        ({"http_port": 65536}, "http_port must be from 0 to 65535, got 65536"),
        ({"max_object_mb": 0}, "max_object_mb must be at least 1, got 0"),
        ({"restore": "strong"}, "restore must be a mapping"),
        ({"restore": {"strength": "many"}}, "restore: strength must be a finite number, got 'many'"),
        ({"restore": {"top_k": 1.5}}, "restore: top_k must be a whole number, got 1.5"),
        ({"restore": {"device": 0}}, "restore: device must be text, got 0"),
        ({"restore": {"trust": {"a": 1}}}, "restore: trust must be a list of texts"),
        ({7: 8}, "unknown setting 7"),
    ],
)
def test_a_wrong_setting_is_one_line(node: Any, settings: dict[Any, Any], told: str) -> None:
    code, err = node({**GOOD, **settings})
    assert (code, err.count("\n")) == (2, 1), err
    assert told in err


@pytest.mark.parametrize(
    ("settings", "arguments", "told"),
    [
        ({}, ["--to", "archive=PACS@127.0.0.1:99999"], "archive: port must be from 1 to 65535, got 99999"),
        ({"destinations": "foo"}, ["--to", "archive=PACS@127.0.0.1:104"], "destinations must be a mapping"),
        ({"restore": "foo"}, ["--strength", "1"], "restore must be a mapping"),
    ],
)
def test_what_the_command_line_adds_is_checked(
    node: Any, settings: dict[str, Any], arguments: list[str], told: str
) -> None:
    code, err = node({**GOOD, **settings}, *arguments)
    assert (code, err.count("\n")) == (2, 1), err
    assert told in err


def test_plain_text_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    read = config_from({**GOOD, "allow": "CT1@10.1.2.3", "send_to": "pacs", "quiet_seconds": 5})
    assert [(one.ae_title, one.host) for one in read.allow] == [("CT1", "10.1.2.3")]
    assert [peer.name for peer in read.destinations] == ["pacs"]
    jobs = []
    monkeypatch.setattr("monai_sasm.node.restorer.restorer_of", jobs.append)
    SeriesRestorer({"trust": "/data/bundles", "strength": 1})
    assert jobs[0].trust == (Path("/data/bundles"),)


def test_a_tilde_in_a_file_of_settings_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "ca.pem").touch()
    files = {"tls_certificate": "~/own.pem", "tls_key": "~/own.key", "tls_ca": "~/ca.pem"}
    peers = {"pacs": {**DICOM, **files}, "web": {"url": "https://pacs.example", "ca_bundle": "~/ca.pem"}}
    read = config_from({**GOOD, **files, "spool": "~/spool", "audit": "~/audit.log", "destinations": peers})
    assert (read.spool, read.audit) == (tmp_path / "spool", tmp_path / "audit.log")
    for one in (read, read.destinations[0]):
        assert {key: getattr(one, key) for key in files} == {
            key: str(tmp_path / value[2:]) for key, value in files.items()
        }
    assert getattr(read.destinations[1], "ca_bundle", None) == str(tmp_path / "ca.pem")
    write_gain_expert(tmp_path / "trusted" / "mr_twice", 2.0, modality="MR")
    SeriesRestorer({"expert": "mr_twice", "trust": "~/trusted"})
