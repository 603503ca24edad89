"""The VS Code extension: what its manifest says; its client and its bundle against the server, in Node without VS Code.

`make vscode` runs VS Code itself: test_vscode_itself.py.
"""

import filecmp
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
from lsp_vscode import ACCEPTED, EXTENSION, FILLED, ROOT, SCRIPTS, TEXT, environment, printed, program, run

from diffcode.lsp import abilities
from diffcode.lsp.session import Session
from diffcode.lsp.settings import schema
from diffcode.version import VERSION

OWN_SETTINGS = {"diffcode.path", "diffcode.arguments"}

if not EXTENSION.is_dir():
    pytest.skip("editors/vscode is not in this copy", allow_module_level=True)


# ---- what needs no Node


def manifest() -> dict:
    return json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))


def test_the_settings_are_the_servers():
    properties = manifest()["contributes"]["configuration"]["properties"]
    servers = {key: value for key, value in properties.items() if key not in OWN_SETTINGS}
    wanted = {f"diffcode.{key}": value for key, value in schema()["properties"].items()}
    assert servers == wanted, "run `npm run settings` in editors/vscode"
    assert properties.keys() - servers.keys() == OWN_SETTINGS


def test_every_command_is_the_extensions_or_the_servers():
    contributes = manifest()["contributes"]
    named = {command["command"] for command in contributes["commands"]}
    session = Session()
    servers = {name for feature in abilities.abilities(session) for name in feature.commands()}
    assert session.close()
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((EXTENSION / "src").glob("*.ts")))
    table = re.findall(r"^    '(diffcode\.\w+)': ", source, re.MULTILINE)
    assert len(table) == len(named)
    assert set(table) == named
    assert not named & servers, "the language client registers the server's commands under their own names"
    sent = set(re.findall(r"(?:server\.run(?:<\w+>)?|edit)\((?:server, )?'(diffcode\.\w+)'", source))
    assert servers - sent == {"diffcode.accepted"}, "for the Copilot dialect"
    assert sent <= servers
    assert {key["command"] for key in contributes["keybindings"]} <= named
    keys = [key["key"] for key in contributes["keybindings"]]
    assert len(set(keys)) == len(keys)


def test_the_readme_names_commands_keys_and_settings():
    readme = (EXTENSION / "README.md").read_text(encoding="utf-8")
    contributes = manifest()["contributes"]
    for command in contributes["commands"]:
        assert command["title"] in readme
    for key in contributes["keybindings"]:
        assert f"`{key['key']}` | `{key['mac']}`" in readme
    assert (
        set(re.findall(r"^\| `(diffcode\.\w+)`", readme, re.MULTILINE))
        <= contributes["configuration"]["properties"].keys()
    )
    assert f"diffcode-{VERSION}.vsix" in readme


def test_the_version_is_the_packages():
    lock = json.loads((EXTENSION / "package-lock.json").read_text(encoding="utf-8"))
    assert {manifest()["version"], lock["version"], lock["packages"][""]["version"]} == {VERSION}


def test_the_licence_is_the_projects():
    assert filecmp.cmp(EXTENSION / "LICENSE", ROOT / "LICENSE", shallow=False)


def test_the_lock_names_what_the_manifest_asks_for():
    lock = json.loads((EXTENSION / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert lock[""]["devDependencies"] == manifest()["devDependencies"]
    unpinned = [
        name for name, package in lock.items() if name and not package.get("integrity", "").startswith("sha512-")
    ]
    assert unpinned == []
    elsewhere = [package["resolved"] for package in lock.values() if "resolved" in package]
    assert [url for url in elsewhere if not url.startswith("https://registry.npmjs.org/")] == []


# ---- what needs it


def alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_session_by_the_protocols_own_library(node: str, copy: Path, workspace: Path):
    command = [workspace / ".venv" / "bin" / "diffcode", "lsp"]
    given = ["--modules", copy, "--file", workspace / "a.py", "--after", "return ", "--", *command]
    said = printed(run(node, SCRIPTS / "session.mjs", *given, env=environment()))
    assert said["server"] == {"name": "diffcode", "version": VERSION}
    assert said["suggestion"] == "2 * x"
    assert said["fill"] == "Fill all 2 holes"
    wanted = {"original": TEXT, "accepted": ACCEPTED, "filled": FILLED, "undone": ACCEPTED}
    assert said["texts"] == wanted
    assert said["sameAgain"]
    assert (said["figures"]["shown"], said["figures"]["accepted"]) == (1, 1)
    assert said["statuses"][0] == said["statuses"][-1] == "normal"
    assert "busy" in said["statuses"]
    assert said["exitCode"] == 0


def test_the_bundle_in_an_editor_made_up(node: str, copy: Path, workspace: Path, tmp_path: Path):
    log, pids = tmp_path / "server.log", tmp_path / "pids"
    settings = json.dumps({"arguments": ["--log", str(log)]})
    given = [copy / "out" / "extension.js", workspace, settings, workspace / "a.py"]
    seen = printed(run(node, SCRIPTS / "extension.cjs", *given, env=environment(DIFFCODE_TEST_PIDS=pids)))
    assert {command["command"] for command in manifest()["contributes"]["commands"]} <= set(seen["commands"])
    (item,), (picked,) = seen["items"], seen["picked"]
    assert (item["insertText"], picked["insertText"]) == ("2 * x", "return 2 * x")
    assert picked["range"]["start"]["character"] == item["range"]["start"]["character"] - len("return ")
    assert (seen["accepted"], seen["filled"]) == (ACCEPTED, FILLED)
    assert seen["varied"] == FILLED.replace("double", "unforeseen")
    assert [item["insertText"] for item in seen["indented"]] == ["\n\treturn 3 * x"], "the editor's indentation"
    assert seen["whileOff"] == []
    assert [15, "hole 1 of 2: half of it"] in seen["reports"], "the live text, where the wish can be cancelled"
    assert not any("half of it" in message for location, message in seen["reports"] if location == 10)
    ready, busy, off, error = (f"$({icon}) diffcode" for icon in ("wand", "loading~spin", "circle-slash", "warning"))
    assert {ready, busy, off} == set(seen["statuses"])
    assert seen["statuses"].index(ready) < seen["statuses"].index(off)
    (nothing, status) = seen["messages"]
    assert nothing[0] == "warning"
    assert "nothing to do" in nothing[1]
    assert "1 of 1 suggestions accepted" in status[1]
    assert error not in seen["statuses"]
    assert [line for line in seen["log"] if re.match("warn|error", line) or "does not know" in line] == []
    assert seen["left"] == []
    servers = [int(line) for line in pids.read_text(encoding="utf-8").split()]
    assert len(servers) == 2, "one before and one after the restart"
    assert not any(map(alive, servers))
    said = log.read_text(encoding="utf-8")  # as diffcode.arguments asked
    assert said.count("serves Visual Studio Code") == said.count("the editor is done") == 2


def test_a_program_that_is_not_there_is_told_with_a_way_out(node: str, copy: Path, tmp_path: Path):
    nowhere = environment(PATH="/nowhere", HOME=tmp_path, VIRTUAL_ENV="")
    given = [copy / "out" / "extension.js", tmp_path, "{}"]
    seen = printed(run(node, SCRIPTS / "extension.cjs", *given, env=nowhere))
    ((kind, text, *answers),) = seen["messages"]
    assert (kind, answers) == ("error", ["How to Install", "Open Setting"])
    assert "diffcode.path" in text
    assert seen["statuses"][-1] == "$(warning) diffcode"


def test_where_the_program_is_looked_for(node: str, copy: Path, tmp_path: Path):
    one, two, home = tmp_path / "one", tmp_path / "two", tmp_path / "home"
    venv = program(two / "venv" / "bin" / "diffcode")
    active = program(tmp_path / "active" / "bin" / "diffcode")
    on_path = program(tmp_path / "path" / "diffcode")
    local = program(home / ".local" / "bin" / "diffcode")
    (one / ".venv" / "bin" / "diffcode").mkdir(parents=True)  # a folder is no program
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "diffcode").write_text("not to be run", encoding="utf-8")
    path = f"relative:{tmp_path / 'text'}:{on_path.parent}"
    cases = [
        ("", [one, two], active.parents[1], path, venv),
        ("", [one], active.parents[1], path, active),
        ("", [one], "", path, on_path),
        ("", [], "", "", local),
        ("", [one], tmp_path / "none", str(tmp_path / "text"), local),
        (str(on_path), [two], "", "", on_path),
        (" ~/.local/bin/diffcode ", [two], "", "", local),
        ("${workspaceFolder}/venv/bin/diffcode", [one, two], "", "", venv),
        ("venv/bin/diffcode", [one, two], "", "", venv),
        ("diffcode", [two], "", path, on_path),
        ("/no/such/program", [two], active.parents[1], path, None),
    ]
    given = [
        {"setting": setting, "folders": [str(f) for f in folders], "home": str(home)}
        | {"environment": {"VIRTUAL_ENV": str(environment_), "PATH": path}}
        for setting, folders, environment_, path, _ in cases
    ]
    done = run(node, SCRIPTS / "find.mjs", copy, input=json.dumps(given), stdin=None)
    assert printed(done) == [wanted and str(wanted) for *_, wanted in cases]


def test_the_settings_script_has_nothing_to_do(node: str, copy: Path):
    done = run(node, "settings.mjs", cwd=copy)
    assert done.returncode == 0, done.stderr
    assert filecmp.cmp(copy / "package.json", EXTENSION / "package.json", shallow=False)


def test_the_package_holds_what_it_needs_and_is_made_without_a_network(copy: Path):
    nowhere = "http://127.0.0.1:9"
    offline = environment(HTTPS_PROXY=nowhere, HTTP_PROXY=nowhere, npm_config_offline="true")
    done = run("npm", "run", "package", cwd=copy, env=offline)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(copy / f"diffcode-{VERSION}.vsix") as package:
        names = {name.removeprefix("extension/") for name in package.namelist() if name.startswith("extension/")}
        notices = package.read("extension/out/THIRD-PARTY.txt").decode()
    assert names == {"package.json", "readme.md", "LICENSE.txt", "out/extension.js", "out/THIRD-PARTY.txt"}
    assert {"vscode-languageclient", "vscode-jsonrpc", "semver"} <= set(
        re.findall(r"^([\w@/-]+) \d", notices, re.MULTILINE)
    )
