"""The README's Python runs as it stands there, one block after the other."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["names"][0][0] == "bone"
    assert names["result"].labels.shape == (1000, 10)
    assert set(names["index"].names(names["found"].labels).ravel()) == {"acute", "liver", None}
    assert "bone" in capsys.readouterr().out
