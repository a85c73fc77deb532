"""Make a bundle: sentences, tokenizer, two trained tiers, GGUF, scorecard, from one recipe.

    python examples/make_a_bundle.py [RECIPE] [RUN]

Needs `pip install tumen[train]`. The default is examples/tiny.toml into runs/tiny, which takes
seconds and learns next to nothing. The same on the command line: `tumen run examples/tiny.toml`.
Run it twice: nothing is made again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tumen.core import units
from tumen.core.artifact import manifest_of
from tumen.eval import scorecard_text

RECIPE = Path(__file__).with_name("tiny.toml")
RUN = Path("runs/tiny")


def main() -> None:
    """Build everything, then print what the device's bundle holds and how good it is."""
    recipe = Path(sys.argv[1]) if len(sys.argv) > 1 else RECIPE
    run = Path(sys.argv[2]) if len(sys.argv) > 2 else RUN
    command = [sys.executable, "-m", "tumen", "run", str(recipe), "--run", str(run)]
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(done.returncode)  # one line is on stderr
    bundle = run / "bundle-device"
    manifest = manifest_of(bundle, "bundle")
    for name, file in manifest.files.items():
        print(f"{bundle / name}: {units.show_bytes(file.bytes)}")
    print(f"digest {manifest.digest}, made from {', '.join(manifest.made_from)}")
    print(f"tokens equal to torch's: {manifest.facts['agreement']:.1%}")
    print("\n".join(scorecard_text(bundle / "scorecard").splitlines()[:2]))


if __name__ == "__main__":
    main()
