"""Each bug of `make mutants` applies to the current code of the library."""

import shutil
from pathlib import Path

import pytest

from tests.mutants import MUTANTS
from tests.mutants.planting import Mutant
from tests.support.processes import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_bug_changes_the_library_and_leaves_it_importable(mutant: Mutant, tmp_path: Path) -> None:
    (tmp_path / mutant.file).parent.mkdir(parents=True)
    shutil.copy(ROOT / mutant.file, tmp_path / mutant.file)
    mutant.plant(tmp_path)
    compile((tmp_path / mutant.file).read_text(), mutant.file, "exec")
    for test in mutant.tests:
        assert (ROOT / test).exists(), test
