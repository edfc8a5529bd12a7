"""Run with the built wheel alone (no extras) in a fresh environment: `make wheel`.

Holds that the light installation is whole: every room imports, the command answers, a corpus without vectors is built and searched, and
what needs an extra says which. Not collected by pytest.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    start = time.perf_counter()
    import rag

    print(f"import rag: {1000 * (time.perf_counter() - start):.0f} ms from {Path(rag.__file__).parent}")
    assert "site-packages" in rag.__file__, f"the wheel is not what was imported: {rag.__file__}"
    for heavy in ("torch", "transformers", "faiss", "fastapi", "sentence_transformers"):
        assert importlib.util.find_spec(heavy) is None, f"{heavy} came along without its extra"
    for name in rag.__all__:
        getattr(rag, name)
    print(f"{len(rag.__all__)} public names import without any extra")

    command = Path(sys.executable).with_name("rag")
    with tempfile.TemporaryDirectory() as folder:
        docs = Path(folder, "docs")
        docs.mkdir()
        (docs / "suits.md").write_text("# Suits\n\nA suit may be worn outside for six hours.\n", "utf-8")
        (docs / "tea.md").write_text("# Tea\n\nTea is served at four.\n", "utf-8")
        for arguments in (["--help"], ["index", str(docs), "--out", f"{folder}/corpus", "--encoder", "none"]):
            done = subprocess.run([str(command), *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"rag {' '.join(arguments)}: {done.stdout}{done.stderr}"
        from rag import BM25, Corpus, Dense, GraftError

        hits = BM25(Corpus.open(f"{folder}/corpus")).search("how long may a suit be worn")
        assert hits, "the corpus that the command built gives no hit"
        assert "six hours" in hits[0].passage.text, hits
        try:
            Dense(Corpus.open(f"{folder}/corpus")).search("suit")
        except GraftError as error:
            print(f"Dense without vectors: {error}")
        else:
            raise AssertionError("Dense answered without vectors")
        pipeline = Path(folder, "pipe.yaml")
        pipeline.write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {folder}/corpus}}}}\n", "utf-8")
        done = subprocess.run([str(command), "draw", str(pipeline)], capture_output=True, text=True, check=False)
        assert done.stdout.startswith("flowchart"), done.stdout + done.stderr
        for arguments in (["demo"], ["serve", "--corpus", f"{folder}/corpus"]):
            done = subprocess.run([str(command), *arguments], capture_output=True, text=True, check=False, cwd=folder)
            assert done.returncode == 2, f"rag {arguments[0]} should stop with exit code 2: {done.returncode} {done.stderr}"
            assert done.stderr.startswith("error: "), done.stderr
            print(f"rag {arguments[0]}: {done.stderr.strip()}")
    print("the wheel is whole")


if __name__ == "__main__":
    main()
