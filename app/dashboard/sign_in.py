"""The sign-in page: plain HTML, without a script."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from starlette.responses import HTMLResponse

from app.dashboard.paths import SIGN_IN, within
from app.errors import AppError

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in · TDMR</title>
<link rel="stylesheet" href="{static}/dashboard.css">
<link rel="icon" href="{static}/icon.svg">
</head>
<body class="sign-in">
<main>
<h1><img src="{static}/icon.svg" alt="" width="28" height="28"> TDMR</h1>
<p>Small models for your classes, from your few images.</p>
<form method="post" action="{action}">
<label for="key">Access key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus
 spellcheck="false" placeholder="tdmr_…"{described}>
{refusal}<button type="submit">Sign in</button>
</form>
<p class="hint">The server printed a key when it was first started; <code>tdmr-server keys
create</code> makes more. A session lasts twelve hours.</p>
</main>
</body>
</html>
"""


def page(target: str, refused: AppError | None = None) -> HTMLResponse:
    """The form; `target` is where it leads, and `refused` why it's shown again."""
    refusal = described = ""
    if refused is not None:
        refusal = f'<p class="refusal" id="refusal" role="alert">{escape(refused.detail)}</p>\n'
        described = ' aria-describedby="refusal" aria-invalid="true"'
    action = within(SIGN_IN) + (f"?next={quote(target, safe='/')}" if target else "")
    made = _PAGE.format(
        static=within("/static"), action=action, refusal=refusal, described=described
    )
    return HTMLResponse(made, 200 if refused is None else refused.status)
