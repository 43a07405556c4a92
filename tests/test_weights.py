"""Weight files: whole, described, and refused where they are not."""
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from zoobook import weights


def test_a_file_that_is_no_weight_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weight file"):
        weights.read(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\x80\x04 a pickle, perhaps")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        weights.read(tmp_path / "bad.safetensors")
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not one written by zoobook"):
        weights.read(tmp_path / "other.safetensors")


def test_a_truncated_file(tmp_path):
    metadata = {"format": "zoobook 1", "spec": json.dumps({})}
    save_file({"encoder.x": np.arange(1000, dtype=np.float32)}, tmp_path / "a.safetensors", metadata)
    assert weights.read(tmp_path / "a.safetensors")[1]["encoder.x"][-1] == 999
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        weights.read(tmp_path / "b.safetensors")
