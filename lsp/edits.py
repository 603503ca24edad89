"""Changes of a document as one WorkspaceEdit, in the richest form that the editor knows: one undo step."""

from collections.abc import Sequence
from typing import Any

from diffcode.lsp.carry import Change
from diffcode.lsp.client import Client
from diffcode.lsp.document import Snapshot

SURE, UNSURE = "diffcode", "diffcode.unsure"


def annotates(client: Client) -> bool:
    """Whether edits may come with a word on what they are, and ask to be confirmed."""
    return client.supports("workspace.workspaceEdit.changeAnnotationSupport") and versions(client)


def versions(client: Client) -> bool:
    """Whether edits may say for which version they are. Who can create and rename files can read that form too, though
    Neovim before 0.12 does not say so."""
    known = (f"workspace.workspaceEdit.{name}" for name in ("documentChanges", "resourceOperations"))
    return any(client.supports(name) for name in known)


def workspace_edit(client: Client, snapshot: Snapshot, changes: Sequence[Change], title: str) -> dict[str, Any]:
    """All ranges are against the snapshot's text, in order; none overlaps."""
    annotated = annotates(client)
    edits = []
    for change in changes:
        edit = {"range": snapshot.text.range(change.hole.start, change.hole.end).json(), "newText": change.text}
        edits.append(edit | ({"annotationId": SURE if change.sure else UNSURE} if annotated else {}))
    if not versions(client):
        return {"changes": {snapshot.uri: edits}}
    document = {"uri": snapshot.uri, "version": snapshot.version}
    whole: dict[str, Any] = {"documentChanges": [{"textDocument": document, "edits": edits}]}
    if annotated:
        annotations = {SURE: {"label": title, "needsConfirmation": False}}
        if not all(change.sure for change in changes):
            annotations[UNSURE] = {"label": f"{title}: perhaps another's", "needsConfirmation": True}
        whole["changeAnnotations"] = annotations
    return whole
