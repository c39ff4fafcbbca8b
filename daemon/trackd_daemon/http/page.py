"""The page that a browser without a session gets (with its 401), and the one when the dashboard was not built. Pure.

The 401 page exchanges the ticket in the fragment for a session and reloads; it is self-contained, and its content
security policy allows exactly its own script and style.
"""

import base64
import hashlib
from typing import Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34rem;padding:0 1rem;"
    "color:#222;background:#fff}"
    "code{background:#eee;padding:.1em .4em;border-radius:.3em}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#333}}"
)

# `ticket` may follow other fields in the fragment; the fragment goes before anything else can see or keep it.
_SCRIPT: Final = """
(async () => {
  const say = (text) => { document.getElementById("why").textContent = text; };
  const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
  if (!ticket) { return; }
  history.replaceState(null, "", location.pathname + location.search);
  say("Opening\\u2026");
  try {
    const answer = await fetch("/api/v1/session", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({ticket}),
    });
    if (answer.ok) {
      localStorage.setItem("trackd_key", (await answer.json()).key);
      location.reload();
    } else {
      say("This link was used before or is older than 15 minutes.");
    }
  } catch (error) {
    say("The hub did not answer: " + error);
  }
})();
"""

_UNAUTHORIZED: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>trackd</title><style>{_STYLE}</style></head>
<body><h1>trackd</h1><p id="why">This browser has no session with this hub.</p>
<p>Run <code>trackd open</code> in a terminal of the machine and account that the hub runs on, and follow the link that
it prints. A link works once, within 15 minutes.</p><script>{_SCRIPT}</script></body></html>
"""

_MISSING: Final = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>trackd</title><style>{_STYLE}</style></head>
<body><h1>The hub is running, the dashboard is not installed</h1>
<p>This trackd was installed from source without npm, so the pages were not built. The data is safe, and
<code>trackd ls</code>, <code>trackd show</code> and <code>trackd.Api()</code> work.</p>
<p>To get the dashboard: install a released wheel (<code>pip install 'trackd[hub]'</code>), or install Node.js 20 or
newer with npm and run <code>npm ci &amp;&amp; npm run build</code> in <code>daemon/web</code> of the source tree; then
reload this page.</p></body></html>
"""


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


UNAUTHORIZED: Final = _UNAUTHORIZED.encode()
MISSING: Final = _MISSING.encode()

# Frames: an inline frame in a notebook on this machine. Other users' servers on loopback could frame the dashboard too,
# but not read it or act in it without a click.
_FRAMES: Final = "frame-ancestors 'self' http://localhost:* http://127.0.0.1:*"
_BASE: Final = f"base-uri 'none'; form-action 'none'; object-src 'none'; {_FRAMES}"

PAGE_POLICY: Final = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; {_BASE}"
)
"""Content security policy of the two pages above."""

APP_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
    f"connect-src 'self'; worker-src 'self'; manifest-src 'self'; {_BASE}"
)
"""Content security policy of everything else."""
