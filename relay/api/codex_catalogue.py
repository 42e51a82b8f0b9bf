"""What Codex wants to know of the models: its catalogue, made from relay.toml.

Of a name that it has never heard of, Codex assumes a small context window, no levels of effort
and no tool for patches. `GET /v1/models?client_version=…` tells it better; so does a file of the
same form, which its setting `model_catalog_json` names. Which members there are and which must
be was found out by running 0.169.0; the others are for older ones. Knows no request.

A catalogue also takes the place of the instructions that Codex would send: those here are the
relay's own, and the same for every model, so that they stay in a prompt cache.
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
_BY_BUDGET: Final = ("low", "medium", "high")  # what these mean to such a model: `wishes`
_OUTPUT: Final = 10_000  # tokens of a tool's output that are shown to the model

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
    """The models of relay.toml and their aliases, in their order."""
    entries: list[dict[str, Any]] = []
    for model in models:
        efforts, usual = _levels(model)
        for name, visibility in ((model.id, "list"), *((one, "hide") for one in model.aliases)):
            entries.append(
                {
                    "slug": name,
                    "display_name": model.display_name or model.id,
                    "description": f"Reads up to {model.context_window:,} tokens, "
                    f"writes up to {model.max_output_tokens:,}",
                    "visibility": visibility,
                    "priority": len(entries) + 1,
                    "supported_in_api": True,
                    "base_instructions": INSTRUCTIONS,
                    "context_window": model.context_window,
                    "default_reasoning_level": usual,
                    "supported_reasoning_levels": [
                        {"effort": effort, "description": _EFFORTS[effort]} for effort in efforts
                    ],
                    "supports_reasoning_summaries": bool(efforts),
                    "support_verbosity": False,
                    "shell_type": "unified_exec",
                    "apply_patch_tool_type": "freeform",
                    "supports_parallel_tool_calls": True,
                    "input_modalities": ["text", "image"],
                    "truncation_policy": {"mode": "tokens", "limit": _OUTPUT},
                    "experimental_supported_tools": [],
                }
            )
    return {"models": entries}


def _levels(model: config.ModelSettings) -> tuple[tuple[str, ...], str | None]:
    """The levels of effort to choose from, and the one that is meant by none.

    Where its upstreams know different ones, all are shown: each takes the nearest it knows.
    """
    routes: list[config.RouteSettings | None] = [*model.routes] if model.routes else [None]
    takes = [
        config.accepts_of(model, route, (route and route.model) or model.id) for route in routes
    ]
    known = {effort for accepts in takes for effort in _efforts(accepts)}
    efforts = tuple(effort for effort in _EFFORTS if effort in known)
    if not efforts:
        return (), None
    usual = "high" if any(accepts.efforts for accepts in takes) else "medium"
    return efforts, usual if usual in efforts else efforts[-1]


def _efforts(accepts: config.Capabilities) -> tuple[str, ...]:
    return accepts.efforts or (_BY_BUDGET if accepts.thinking == "budget" else ())
