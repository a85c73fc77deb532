"""Serve a bundle on this machine and call it as any client of OpenAI's HTTP API does.

    python examples/serve_and_call.py [BUNDLE] [SENTENCE]

Needs `pip install tumen` and a bundle; examples/make_a_bundle.py makes one in runs/tiny. The stock
client works too: `openai.OpenAI(base_url=url, api_key="none").chat.completions.create(...)`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import Any

BUNDLE = "runs/tiny/bundle-device"
SENTENCE = "turn on the kitchen light"
READY = "listening on "


def call(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON answer to a GET, or to a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        tree: dict[str, Any] = json.load(answer)
    return tree


def main() -> None:
    """Start the server, list its models, ask one sentence, stop the server."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else BUNDLE
    sentence = sys.argv[2] if len(sys.argv) > 2 else SENTENCE
    command = [sys.executable, "-m", "tumen", "serve", bundle, "--port", "0", "--ungated"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        line = server.stdout.readline()  # one line, once the model is loaded; none if it failed
        if not line.startswith(READY):
            raise SystemExit(server.wait())
        url = line.removeprefix(READY).strip()
        models = [model["id"] for model in call(f"{url}/models")["data"]]
        print(f"models: {', '.join(models)}")
        message = {"role": "user", "content": sentence}
        body = {"model": models[0], "messages": [message]}
        answer = call(f"{url}/chat/completions", body)
        print(f"sentence: {sentence}")
        print(f"action: {answer['choices'][0]['message']['content']}")
        print(f"answered by: {answer['tumen']}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
