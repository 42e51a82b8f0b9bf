"""Codex's model catalogue, made from relay.toml.

For an unknown model, Codex assumes a small context window, no effort levels and no patch tool.
It replaces these defaults by the answer to `GET /v1/models?client_version=…`, or by a file of the
same form that its setting `model_catalog_json` names. The required members were found by running
Codex 0.169.0; the others serve older versions.

A catalogue also replaces the instructions that Codex would send. Those here are the relay's own,
the same for every model, so they stay in a prompt cache.

Decides the catalogue's content. Must not know requests.
"""

from typing import Any, Final

from relay import config

_EFFORTS: Final = {
    "low": "Thinks little: quick answers, small and clear tasks",
    "medium": "Thinks as much as everyday work needs",
    "high": "Thinks thoroughly: hard problems, changes in many places",
    "xhigh": "Thinks longer still, for what high has not solved",
    "max": "Thinks without restraint, at the price of time and tokens",
}
# Effort levels of a model with a thinking budget; `translate.request.options` maps them.
_BUDGET_EFFORTS: Final = ("low", "medium", "high")
_MAX_TOOL_OUTPUT_TOKENS: Final = 10_000  # the rest of a tool's output is truncated

INSTRUCTIONS: Final = """\
You are a coding agent in the terminal of the person you work for. Codex runs the tools that you \
call: you read and change files, run commands, and tell what came of it.

# Working
- Do all of what was asked and nothing beyond it. Go on until it is done, or until you need \
something that only the user can give; then say what that is.
- Look before you change anything: read the files concerned and see how this project does such \
things. Keep to its ways. An AGENTS.md speaks for its folder and all below it; the one nearest \
to a file counts most, and the user's own words count more.
- Mend the cause, not the symptom. Leave alone what has nothing to do with the task, and mention \
it if it matters.
- Changes that you find and have not made belong to somebody. Never undo them. Do not commit, \
reset or switch branches unless you were asked to.
- Ask before anything that cannot be undone or that reaches beyond the task.
- Prove your work where you can: run the tests closest to it first, then wider ones. Say plainly \
what failed and what you could not check. Never make up the output of a command.
- For searching, `rg` is quicker than grep or find. Calls that do not need each other's results \
belong in one go.

# Changing files
Use `apply_patch` if you have it, rather than a script, for edits by hand. Its input is a patch \
and nothing else:

*** Begin Patch
*** Update File: src/clock.py
@@ def now():
     before = read()
-    return before
+    return before + OFFSET
*** Add File: docs/clock.md
+# The clock
*** Delete File: src/old_clock.py
*** End Patch

A line of a change begins with a space (it stays), "-" (it goes) or "+" (it comes); every line \
of a new file begins with "+". Show about three lines that stay on either side of a change, \
exactly as they are in the file; where they occur more than once, name the function or class \
after "@@". Paths are relative. "*** Move to: path" after "*** Update File:" renames.

# Speaking
Be brief and plain. Say in a line what you are about to do before longer work. At the end tell \
what is different now and where (path and line), what you checked, and what is still open. Do \
not repeat files or long output that the user can see.
"""


def catalogue(models: list[config.ModelSettings]) -> dict[str, Any]:
    """The models of relay.toml and their aliases, in their order. Patterns are no names."""
    entries: list[dict[str, Any]] = []
    for model in models:
        efforts, default = _effort_levels(model)
        for name in config.exact_names(model):
            entries.append(
                {
                    "slug": name,
                    "display_name": model.display_name or model.id,
                    "description": f"Reads up to {model.context_window:,} tokens, "
                    f"writes up to {model.max_output_tokens:,}",
                    "visibility": "list" if name == model.id else "hide",
                    "priority": len(entries) + 1,
                    "supported_in_api": True,
                    "base_instructions": INSTRUCTIONS,
                    "context_window": model.context_window,
                    "default_reasoning_level": default,
                    "supported_reasoning_levels": [
                        {"effort": effort, "description": _EFFORTS[effort]} for effort in efforts
                    ],
                    "supports_reasoning_summaries": bool(efforts),
                    "support_verbosity": False,
                    "shell_type": "unified_exec",
                    "apply_patch_tool_type": "freeform",
                    "supports_parallel_tool_calls": True,
                    "input_modalities": ["text", "image"],
                    "truncation_policy": {"mode": "tokens", "limit": _MAX_TOOL_OUTPUT_TOKENS},
                    "experimental_supported_tools": [],
                }
            )
    return {"models": entries}


def _effort_levels(model: config.ModelSettings) -> tuple[tuple[str, ...], str | None]:
    """The effort levels that a model offers, and its default.

    Levels of all its upstreams are offered: each upstream maps a level to its nearest one.
    """
    routes: list[config.RouteSettings | None] = [*model.routes] if model.routes else [None]
    capabilities = [
        config.accepts_of(model, route, (route and route.model) or model.id) for route in routes
    ]
    offered = {effort for accepted in capabilities for effort in _efforts(accepted)}
    efforts = tuple(effort for effort in _EFFORTS if effort in offered)
    if not efforts:
        return (), None
    default = "high" if any(accepted.efforts for accepted in capabilities) else "medium"
    return efforts, default if default in efforts else efforts[-1]


def _efforts(accepted: config.Capabilities) -> tuple[str, ...]:
    return accepted.efforts or (_BUDGET_EFFORTS if accepted.thinking == "budget" else ())
